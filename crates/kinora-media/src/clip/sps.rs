//! Crops a sequence parameter set: what the encoder sees is a whole number of blocks, what a player shows is not.
//!
//! The encoder can crop by itself, but fills the blocks it then completes with zeros, a green that bleeds into the
//! right and bottom edges. So it is given frames that repeat their edges, and its parameter set is rewritten here.
//!
//! Source: ITU-T H.264, 7.3.2.1.1 (syntax), 7.4.1 (emulation prevention), 9.1 (Exp-Golomb codes).

const PROFILE_BASELINE: u32 = 66;

/// The parameter set `nal` (no start code) that hides this many columns on the right and rows at the bottom, both
/// even. `None` where it is not one that openh264 writes.
pub(super) fn cropped(nal: &[u8], right_px: u32, bottom_px: u32) -> Option<Vec<u8>> {
    let payload = without_emulation_prevention(nal);
    let mut bits = Bits { bytes: &payload, at: 0 };
    let _nal_header = bits.take(8)?;
    let profile = bits.take(8)?;
    let _constraints_and_level = bits.take(16)?;
    let _id = bits.take_golomb()?;
    let _log2_max_frame_num = bits.take_golomb()?;
    let order_count_type = bits.take_golomb()?;
    if profile != PROFILE_BASELINE || order_count_type == 1 {
        return None;
    }
    if order_count_type == 0 {
        let _log2_max_order_count = bits.take_golomb()?;
    }
    let _references_count = bits.take_golomb()?;
    let _gaps_allowed = bits.take(1)?;
    let _width_in_blocks = bits.take_golomb()?;
    let _height_in_blocks = bits.take_golomb()?;
    let is_progressive = bits.take(1)? == 1;
    let _direct_8x8 = bits.take(1)?;
    let head_end = bits.at;
    if !is_progressive {
        return None;
    }
    if bits.take(1)? == 1 {
        for _side in 0..4 {
            bits.take_golomb()?;
        }
    }
    let tail = bits.at..last_one(&payload)?;

    let mut out = BitWriter::default();
    (0..head_end).try_for_each(|at| out.put(bit(&payload, at)?))?;
    out.put(true)?;
    // In units of chroma samples: left, right, top, bottom.
    [0, right_px / 2, 0, bottom_px / 2].into_iter().try_for_each(|crop| out.put_golomb(crop))?;
    tail.into_iter().try_for_each(|at| out.put(bit(&payload, at)?))?;
    out.put(true)?;
    Some(with_emulation_prevention(&out.bytes))
}

fn bit(bytes: &[u8], at: usize) -> Option<bool> {
    Some(bytes.get(at / 8)? >> (7 - at % 8) & 1 == 1)
}

/// Where the stop bit is.
fn last_one(bytes: &[u8]) -> Option<usize> {
    (0..bytes.len() * 8).rev().find(|at| bit(bytes, *at) == Some(true))
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            value = value << 1 | u32::from(bit(self.bytes, self.at)?);
            self.at += 1;
        }
        Some(value)
    }

    fn take_golomb(&mut self) -> Option<u32> {
        let mut zeros_count = 0;
        while self.take(1)? == 0 {
            zeros_count += 1;
        }
        if zeros_count > 16 {
            return None;
        }
        Some((1 << zeros_count) - 1 + self.take(zeros_count)?)
    }
}

#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    bits_count: usize,
}

impl BitWriter {
    fn put(&mut self, bit: bool) -> Option<()> {
        if self.bits_count.is_multiple_of(8) {
            self.bytes.push(0);
        }
        *self.bytes.last_mut()? |= u8::from(bit) << (7 - self.bits_count % 8);
        self.bits_count += 1;
        Some(())
    }

    fn put_golomb(&mut self, value: u32) -> Option<()> {
        let code = value + 1;
        let bits_count = code.ilog2() + 1;
        (1..bits_count).try_for_each(|_| self.put(false))?;
        (0..bits_count).rev().try_for_each(|at| self.put(code >> at & 1 == 1))
    }
}

fn without_emulation_prevention(nal: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(nal.len());
    let mut zeros_count = 0;
    for &byte in nal {
        if zeros_count >= 2 && byte == 3 {
            zeros_count = 0;
            continue;
        }
        zeros_count = if byte == 0 { zeros_count + 1 } else { 0 };
        payload.push(byte);
    }
    payload
}

fn with_emulation_prevention(payload: &[u8]) -> Vec<u8> {
    let mut nal = Vec::with_capacity(payload.len() + 4);
    let mut zeros_count = 0;
    for &byte in payload {
        if zeros_count >= 2 && byte <= 3 {
            nal.push(3);
            zeros_count = 0;
        }
        zeros_count = if byte == 0 { zeros_count + 1 } else { 0 };
        nal.push(byte);
    }
    nal
}
