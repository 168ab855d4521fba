//! Layers of encoder and decoder, and what the causal ones remember between chunks of a clip.
//!
//! A chunk is `[T, C, H, W]`. Always true: a clip gives the same numbers however it is cut into chunks (but for the first
//! frame, which the reference treats as a chunk of its own), because every layer that looks back finds in [`Past`] the
//! last frames that it saw. A layer never changes, so many clips or tiles may pass through it, each with its own past.

use candle_core::{DType, Tensor};

use super::shortcut::Copies;
use crate::WanError;
use crate::ops::{Conv, ConvShape, Frames, Ops, Place, Sampling};
use crate::weights::Weights;

/// Where weights come from and where they go, while layers are loaded; numbers those that look back.
#[derive(Debug)]
pub(super) struct Loader<'a> {
    pub weights: &'a Weights,
    pub place: Place<'a>,
    /// Layers so far that look back.
    pub slots: usize,
}

/// The last frames each layer saw of one clip or tile.
#[derive(Debug, Default)]
pub(super) struct Past {
    slots: Vec<Slot>,
}

#[derive(Debug, Default, Clone)]
pub(super) enum Slot {
    /// The layer has not been reached.
    #[default]
    New,
    /// It has passed the first frame on untouched.
    Skipped,
    /// Its last frames, or one tensor of them, each `[T, C, H, W]`.
    Frames(Vec<Tensor>),
}

impl Past {
    pub(super) fn new(slots: usize) -> Self {
        Self { slots: vec![Slot::New; slots] }
    }
}

impl Slot {
    fn frames(&self) -> &[Tensor] {
        match self {
            Slot::Frames(frames) => frames,
            Slot::New | Slot::Skipped => &[],
        }
    }
}

/// The last `count` frames of `past` and `x` together: `x` itself where it is one, in memory of their own where it is cut.
fn last_frames(past: &[Tensor], x: &Tensor, count: usize) -> Result<Vec<Tensor>, WanError> {
    let frames = x.dim(0)?;
    if frames > count {
        // `copy` would keep all frames and show some of them.
        return Ok(vec![x.narrow(0, frames - count, count)?.force_contiguous()?]);
    }
    let mut kept = vec![x.clone()];
    let mut missing = count - frames;
    for before in past.iter().rev() {
        let frames = before.dim(0)?.min(missing);
        if frames > 0 {
            kept.push(before.narrow(0, before.dim(0)? - frames, frames)?);
            missing -= frames;
        }
    }
    kept.reverse();
    Ok(kept)
}

/// A convolution that looks at this frame and those before it, never ahead.
#[derive(Debug)]
pub(super) struct CausalConv {
    conv: Conv,
    /// Its place in [`Past`]; `None` where it does not look back.
    slot: Option<usize>,
}

impl CausalConv {
    /// `kernel` counts steps in time, and rows and columns.
    pub(super) fn load(
        loader: &mut Loader<'_>,
        name: &str,
        [inputs, outputs]: [usize; 2],
        kernel: [usize; 2],
    ) -> Result<Self, WanError> {
        let shape = ConvShape { outputs, inputs, kernel, stride: 1, sampling: Sampling::Same, flat: false };
        let slot = (kernel[0] > 1).then(|| {
            loader.slots += 1;
            loader.slots - 1
        });
        Ok(Self { conv: Conv::load(loader.weights, name, shape, loader.place)?, slot })
    }

    pub(super) fn forward(&self, x: &Tensor, past: &mut Past) -> Result<Tensor, WanError> {
        self.forward_onto(x, None, past)
    }

    /// Added to `onto` where given.
    fn forward_onto(&self, x: &Tensor, onto: Option<&Tensor>, past: &mut Past) -> Result<Tensor, WanError> {
        let Some(slot) = self.slot else {
            return self.conv.forward(Frames::alone(x), onto);
        };
        let back = self.conv.shape().kernel[0] - 1;
        let seen = past.slots[slot].frames();
        let known: usize = seen.iter().map(|frames| frames.dims()[0]).sum();
        let out = self.conv.forward(Frames { zeros: back - known, past: seen, x }, onto)?;
        past.slots[slot] = Slot::Frames(last_frames(seen, x, back)?);
        Ok(out)
    }

    /// As [`CausalConv::forward`], but a clip's first chunk goes by unseen: `None`.
    fn forward_after_first(&self, x: &Tensor, past: &mut Past) -> Result<Option<Tensor>, WanError> {
        let slot = &mut past.slots[self.slot.expect("a convolution in time has a past")];
        if matches!(slot, Slot::New) {
            *slot = Slot::Skipped;
            return Ok(None);
        }
        self.forward(x, past).map(Some)
    }
}

/// A normalisation of each pixel's channels.
#[derive(Debug)]
pub(super) struct Norm {
    gamma: Tensor,
    ops: Ops,
}

impl Norm {
    /// `name.gamma`, of one number for each channel; `sides` counts the ones that its shape ends in.
    pub(super) fn load(
        loader: &Loader<'_>,
        name: &str,
        channels: usize,
        sides: usize,
    ) -> Result<Self, WanError> {
        let shape: Vec<_> = std::iter::once(channels).chain(std::iter::repeat_n(1, sides)).collect();
        let Place { device, ops, .. } = loader.place;
        let gamma = loader.weights.tensor(&format!("{name}.gamma"), shape, DType::F32, device)?;
        Ok(Self { gamma: gamma.flatten_all()?, ops })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor, WanError> {
        self.ops.channel_norm(x, &self.gamma, false)
    }

    pub(super) fn silu(&self, x: &Tensor) -> Result<Tensor, WanError> {
        self.ops.channel_norm(x, &self.gamma, true)
    }
}

/// Two normalised convolutions beside a shortcut.
#[derive(Debug)]
pub(super) struct ResidualBlock {
    norms: [Norm; 2],
    convs: [CausalConv; 2],
    shortcut: Option<CausalConv>,
}

impl ResidualBlock {
    pub(super) fn load(
        loader: &mut Loader<'_>,
        name: &str,
        [inputs, outputs]: [usize; 2],
    ) -> Result<Self, WanError> {
        let shortcut = match inputs == outputs {
            true => None,
            false => {
                Some(CausalConv::load(loader, &format!("{name}.conv_shortcut"), [inputs, outputs], [1, 1])?)
            }
        };
        Ok(Self {
            norms: [
                Norm::load(loader, &format!("{name}.norm1"), inputs, 3)?,
                Norm::load(loader, &format!("{name}.norm2"), outputs, 3)?,
            ],
            convs: [
                CausalConv::load(loader, &format!("{name}.conv1"), [inputs, outputs], [3, 3])?,
                CausalConv::load(loader, &format!("{name}.conv2"), [outputs, outputs], [3, 3])?,
            ],
            shortcut,
        })
    }

    pub(super) fn forward(&self, x: &Tensor, past: &mut Past) -> Result<Tensor, WanError> {
        let first = self.convs[0].forward(&self.norms[0].silu(x)?, past)?;
        let normal = self.norms[1].silu(&first)?;
        drop(first);
        match &self.shortcut {
            Some(shortcut) => {
                let around = shortcut.forward(x, past)?;
                self.convs[1].forward_onto(&normal, Some(&around), past)
            }
            None => self.convs[1].forward_onto(&normal, Some(x), past),
        }
    }
}

/// Attention among the pixels of a frame, one head.
#[derive(Debug)]
struct Attention {
    norm: Norm,
    qkv: Conv,
    proj: Conv,
}

impl Attention {
    fn load(loader: &Loader<'_>, name: &str, channels: usize) -> Result<Self, WanError> {
        let linear = |name: String, outputs: usize| {
            let kernel = [1, 1];
            let shape = ConvShape {
                outputs,
                inputs: channels,
                kernel,
                stride: 1,
                sampling: Sampling::Same,
                flat: true,
            };
            Conv::load(loader.weights, &name, shape, loader.place)
        };
        Ok(Self {
            norm: Norm::load(loader, &format!("{name}.norm"), channels, 2)?,
            qkv: linear(format!("{name}.to_qkv"), 3 * channels)?,
            proj: linear(format!("{name}.proj"), channels)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor, WanError> {
        let (count, channels, height, width) = x.dims4()?;
        let normal = self.norm.forward(x)?;
        let qkv = self.qkv.forward(Frames::alone(&normal), None)?; // [T, 3C, H, W]
        let mut frames = Vec::with_capacity(count);
        for frame in 0..count {
            let all = qkv.get(frame)?.reshape((3, channels, height * width))?.transpose(1, 2)?; // [3, H·W, C]
            let [q, k, v] = [0, 1, 2].map(|part| all.get(part).and_then(|part| part.contiguous()));
            let out = self.norm.ops.attention(&q?, &k?, &v?, 1)?; // [H·W, C]
            frames.push(out.t()?.contiguous()?.reshape((1, channels, height, width))?);
        }
        let out = Tensor::cat(&frames, 0)?;
        self.proj.forward(Frames::alone(&out), Some(x))
    }
}

/// The narrowest part: a residual block, attention, a residual block.
#[derive(Debug)]
pub(super) struct MidBlock {
    resnets: [ResidualBlock; 2],
    attention: Attention,
}

impl MidBlock {
    pub(super) fn load(loader: &mut Loader<'_>, name: &str, channels: usize) -> Result<Self, WanError> {
        Ok(Self {
            resnets: [
                ResidualBlock::load(loader, &format!("{name}.resnets.0"), [channels; 2])?,
                ResidualBlock::load(loader, &format!("{name}.resnets.1"), [channels; 2])?,
            ],
            attention: Attention::load(loader, &format!("{name}.attentions.0"), channels)?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor, past: &mut Past) -> Result<Tensor, WanError> {
        let x = self.attention.forward(&self.resnets[0].forward(x, past)?)?;
        self.resnets[1].forward(&x, past)
    }
}

/// Halves rows and columns, and time as well where it has a second convolution.
#[derive(Debug)]
pub(super) struct Downsample {
    space: Conv,
    time: Option<(Conv, usize)>,
}

impl Downsample {
    pub(super) fn load(
        loader: &mut Loader<'_>,
        name: &str,
        channels: usize,
        temporal: bool,
    ) -> Result<Self, WanError> {
        let shape = ConvShape {
            outputs: channels,
            inputs: channels,
            kernel: [1, 3],
            stride: 1,
            sampling: Sampling::Halve,
            flat: true,
        };
        let space = Conv::load(loader.weights, &format!("{name}.resample.1"), shape, loader.place)?;
        let time = if temporal {
            let shape =
                ConvShape { kernel: [3, 1], stride: 2, sampling: Sampling::Same, flat: false, ..shape };
            loader.slots += 1;
            let conv = Conv::load(loader.weights, &format!("{name}.time_conv"), shape, loader.place)?;
            Some((conv, loader.slots - 1))
        } else {
            None
        };
        Ok(Self { space, time })
    }

    /// The first chunk, of one frame, keeps it; later ones, of an even number, have half as many after.
    pub(super) fn forward(&self, x: &Tensor, past: &mut Past) -> Result<Tensor, WanError> {
        let x = self.space.forward(Frames::alone(x), None)?;
        let Some((conv, slot)) = &self.time else { return Ok(x) };
        let seen = std::mem::replace(&mut past.slots[*slot], Slot::Frames(last_frames(&[], &x, 1)?));
        match seen {
            Slot::Frames(last) => conv.forward(Frames { zeros: 0, past: &last, x: &x }, None),
            Slot::New | Slot::Skipped => Ok(x),
        }
    }
}

/// Doubles rows and columns, and before that time where it has a convolution for it.
#[derive(Debug)]
pub(super) struct Upsample {
    space: Conv,
    time: Option<CausalConv>,
}

impl Upsample {
    pub(super) fn load(
        loader: &mut Loader<'_>,
        name: &str,
        [inputs, outputs]: [usize; 2],
        temporal: bool,
    ) -> Result<Self, WanError> {
        let shape =
            ConvShape { outputs, inputs, kernel: [1, 3], stride: 1, sampling: Sampling::Double, flat: true };
        let space = Conv::load(loader.weights, &format!("{name}.resample.1"), shape, loader.place)?;
        let time = match temporal {
            true => {
                Some(CausalConv::load(loader, &format!("{name}.time_conv"), [inputs, 2 * inputs], [3, 1])?)
            }
            false => None,
        };
        Ok(Self { space, time })
    }

    /// One frame `[1, C, H, W]` to one, or after the first of a clip to two where time is doubled; the frames of
    /// `copies`, where given, are added.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        copies: Option<Copies<'_>>,
        past: &mut Past,
    ) -> Result<Vec<Tensor>, WanError> {
        let doubled = match &self.time {
            Some(conv) => conv.forward_after_first(x, past)?,
            None => None,
        };
        let frames = match doubled {
            // [1, 2·C, H, W]: the channels of the earlier frame, then of the later.
            Some(doubled) => doubled.chunk(2, 1)?,
            None => vec![x.clone()],
        };
        let count = frames.len();
        let each = frames.iter().enumerate().map(|(index, frame)| {
            let onto = copies.map(|copies| copies.frame(index, count)).transpose()?;
            self.space.forward(Frames::alone(frame), onto.as_ref())
        });
        each.collect()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Storage, Tensor};

    use super::last_frames;

    #[test]
    fn no_frame_is_kept_but_the_last() {
        let x = Tensor::arange(0f32, 4.0 * 6.0, &Device::Cpu).unwrap().reshape((4, 1, 2, 3)).unwrap();
        let kept = last_frames(&[], &x, 2).unwrap();
        assert_eq!(kept.len(), 1);
        assert_eq!(
            kept[0].flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            (12..24).map(|n| n as f32).collect::<Vec<_>>()
        );
        let (storage, _) = kept[0].storage_and_layout();
        let Storage::Cpu(numbers) = &*storage else { panic!("on the CPU") };
        assert_eq!(numbers.as_slice::<f32>().unwrap().len(), 12, "two frames take the room of two");
    }
}
