//! Solvers against the reference's, step by step.

use candle_core::{Device, Tensor};
use kinora_wan::sampler::{Solver, SolverConfig, SolverName};

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
        (
            r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1e9}"#,
            "`shift` must be from 0.01 to 100, not 1000000000",
        ),
        (
            r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 0}"#,
            "`num_train_timesteps` must be from 1",
        ),
        (r#"{"_class_name": "UniPCMultistepScheduler", "flow_shift": 0}"#, "`flow_shift` must be from 0.01"),
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

fn config(kind: &str, case: &str) -> SolverConfig {
    SolverConfig::read_file(&path(&format!("solver/{kind}_{case}.json"))).unwrap()
}

/// A configuration of the file system's with another value of `key`.
fn with_shift(kind: &str, key: &str, shift: f64) -> SolverConfig {
    let text = std::fs::read_to_string(path(&format!("solver/{kind}_a.json"))).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_ne!(value[key], shift, "it must change");
    value[key] = shift.into();
    let file = std::env::temp_dir().join(format!("kinora-{kind}-{shift}-{}.json", std::process::id()));
    std::fs::write(&file, value.to_string()).unwrap();
    let config = SolverConfig::read_file(&file).unwrap();
    std::fs::remove_file(file).unwrap();
    config
}

/// A made-up velocity, so that each step differs from the last.
fn walk(config: &SolverConfig, steps: usize) -> Vec<f32> {
    let mut solver = config.solver(steps).unwrap();
    let mut sample = list(&[0.3, -1.2, 0.7]);
    for step in 0..steps {
        let velocity = (&sample * (0.5 + step as f64)).unwrap().sin().unwrap();
        sample = solver.step(&velocity, &sample).unwrap();
    }
    sample.to_vec1().unwrap()
}

#[test]
fn a_shift_that_is_set_is_as_one_that_the_file_has() {
    for (kind, key) in [("unipc", "flow_shift"), ("euler", "shift")] {
        let (set, read) = (config(kind, "a").adapted(None, Some(7.25)), with_shift(kind, key, 7.25));
        let schedule = |config: &SolverConfig| config.solver(9).unwrap().schedule().clone();
        assert_eq!(schedule(&set), schedule(&read), "{kind}");
        assert_ne!(schedule(&set), schedule(&config(kind, "a")), "{kind}");
        assert_eq!(walk(&set, 9), walk(&read, 9), "{kind}");
    }
}

#[test]
fn euler_in_place_of_unipc_steps_where_adapters_for_few_steps_were_distilled() {
    let euler = config("unipc", "a").adapted(Some(SolverName::Euler), Some(5.0));
    let solver = euler.solver(4).unwrap();
    // 1, 3/4, 1/2 and 1/4 before the shift; times of UniPC are whole numbers.
    let sigmas = [1.0, 15.0 / 16.0, 5.0 / 6.0, 5.0 / 8.0, 0.0];
    for (level, wanted) in solver.schedule().sigmas.iter().zip(sigmas) {
        assert!((level - wanted).abs() < 2e-3, "{:?}", solver.schedule());
    }
    let unipc = config("unipc", "a").adapted(None, Some(5.0));
    assert_eq!(solver.schedule(), unipc.solver(4).unwrap().schedule());
    // By hand: from level to level along the velocity.
    let mut sample = [0.3f32, -1.2, 0.7];
    for (step, levels) in solver.schedule().sigmas.windows(2).enumerate() {
        sample = sample.map(|x| x + (x * (0.5 + step as f32)).sin() * (levels[1] - levels[0]));
    }
    for (walked, wanted) in walk(&euler, 4).into_iter().zip(sample) {
        assert!((walked - wanted).abs() < 1e-5, "{walked} {wanted}");
    }
    assert_ne!(walk(&euler, 4), walk(&unipc, 4));
}

#[test]
fn unipc_in_place_of_euler_is_that_of_the_published_files() {
    let published = with_shift("unipc", "flow_shift", 3.5);
    let there = config("euler", "a").adapted(Some(SolverName::UniPc), Some(3.5));
    assert_eq!(walk(&there, 9), walk(&published, 9));
    let back = config("unipc", "a").adapted(Some(SolverName::UniPc), None);
    assert_eq!(walk(&back, 9), walk(&config("unipc", "a"), 9), "what the file has is kept");
}
