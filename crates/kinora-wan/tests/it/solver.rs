//! Solvers against the reference's, step by step.

use candle_core::{Device, Tensor};
use kinora_wan::sampler::{Solver, SolverConfig};

use crate::golden::{Golden, path};

/// A solver for a case, and how many steps it has.
fn solver(kind: &str, golden: &Golden, case: &str) -> (Solver, usize) {
    let steps = golden.tensor(&format!("{case}.timesteps")).dims1().unwrap();
    let config = SolverConfig::read_file(&path(&format!("solver/{kind}_{case}.json"))).unwrap();
    (config.solver(steps).unwrap(), steps)
}

fn list(numbers: &[f32]) -> Tensor {
    Tensor::from_slice(numbers, numbers.len(), &Device::Cpu).unwrap()
}

#[test]
fn steps_are_the_references() {
    for kind in ["unipc", "euler"] {
        let golden = Golden::read(&format!("solver/{kind}.safetensors"));
        for case in golden.cases() {
            let (mut solver, steps) = solver(kind, &golden, &case);
            golden.assert_close(&format!("{case}.sigmas"), &list(&solver.schedule().sigmas));
            golden.assert_close(&format!("{case}.timesteps"), &list(&solver.schedule().times));
            let mut sample = golden.tensor(&format!("{case}.sample_0"));
            for step in 0..steps {
                let velocity = golden.tensor(&format!("{case}.model_output_{step}"));
                sample = solver.step(&velocity, &sample).unwrap();
                golden.assert_close(&format!("{case}.sample_{}", step + 1), &sample);
            }
        }
    }
}

#[test]
fn a_disturbed_velocity_shows_in_the_next_sample() {
    for kind in ["unipc", "euler"] {
        let golden = Golden::read(&format!("solver/{kind}.safetensors"));
        for case in golden.cases() {
            let steps = solver(kind, &golden, &case).1;
            for disturbed in 0..steps {
                let mut solver = solver(kind, &golden, &case).0;
                let mut sample = golden.tensor(&format!("{case}.sample_0"));
                for step in 0..=disturbed {
                    let mut velocity = golden.tensor(&format!("{case}.model_output_{step}"));
                    if step == disturbed {
                        velocity = (velocity * 1.1).unwrap();
                    }
                    sample = solver.step(&velocity, &sample).unwrap();
                }
                let overshoot = golden.overshoot(&format!("{case}.sample_{}", disturbed + 1), &sample);
                assert!(overshoot > 1.0, "{kind} {case} step {disturbed}: {overshoot} of the tolerance");
            }
        }
    }
}

#[test]
fn a_configuration_that_is_not_understood_is_refused() {
    let folder = std::env::temp_dir().join(format!("kinora-solver-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (text, told) in [
        (r#"{"_class_name": "DDIMScheduler"}"#, "DDIMScheduler"),
        (r#"{"_class_name": "UniPCMultistepScheduler"}"#, "flow_prediction"),
        (
            r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "use_karras_sigmas": true}"#,
            "use_karras_sigmas",
        ),
        ("{}", "_class_name"),
        ("", "scheduler_config.json"),
    ] {
        std::fs::write(folder.join("scheduler_config.json"), text).unwrap();
        let error = SolverConfig::read(&folder).unwrap_err().to_string();
        assert!(error.contains(told), "{text}: {error}");
    }
    std::fs::remove_dir_all(folder).unwrap();
    let config = SolverConfig::read_file(&path("solver/unipc_a.json")).unwrap();
    assert!(config.solver(0).is_err() && config.solver(151).is_err());
}
