//! The command line of `isaac-rewrite`: what it prints, its exit status, and that nothing is written when something is wrong.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use isaac::model::{Model, NodeExt};
use prost::Message;
use serde_json::Value;

use common::{export, fixture, model, tensor};

const MLP: &str = "mlp_gemm_ts17/training_model.onnx";
const GPT2: &str = "gpt2_hf_ts15/training_model.onnx";

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_isaac-rewrite")).args(arguments).output().expect("isaac-rewrite starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn status(output: &Output) -> i32 {
    output.status.code().expect("an exit status")
}

/// Runs with `-o` into a new folder; afterwards the folder holds the output, or nothing.
fn rewrite(input: &Path, arguments: &[&str]) -> (Output, Option<Model>) {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out.onnx");
    let [input, out] = [input, &target].map(|path| path.to_str().unwrap());
    let output = run(&[&[input, "-o", out], arguments].concat());
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, usize::from(target.exists()), "no file but the output");
    let written = target.exists().then(|| Model::load(&target).unwrap());
    (output, written)
}

fn operators(model: &Model) -> usize {
    let nodes = model.graph().nodes().iter();
    nodes.filter(|node| node.is("ai.isaac", "IsaacGemm")).count()
}

#[test]
fn rewrites_and_says_so() {
    let (output, written) = rewrite(&fixture(MLP), &["--lambda", "0.5", "--expect", "3"]);
    assert_eq!(status(&output), 0, "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("3 of 3 layers rewritten: "));
    let written = written.unwrap();
    assert_eq!(operators(&written), 3);
    assert_eq!(written.opset("ai.isaac"), Some(1));
    let nodes = written.graph().nodes().iter().filter(|node| node.is("ai.isaac", "IsaacGemm"));
    assert!(nodes.into_iter().all(|node| node.float("lambda_a", 0.0) == 0.5));
}

#[test]
fn json_is_the_documented_object() {
    let (output, _) = rewrite(&fixture(GPT2), &["--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&report), ["input", "output", "kind", "opset", "layers", "rewritten"]);
    assert_eq!(
        (&report["kind"], &report["opset"], &report["rewritten"]),
        (&"training-graph".into(), &15.into(), &4.into())
    );
    let layers = report["layers"].as_array().unwrap();
    assert_eq!(
        keys(&layers[0]),
        [
            "index",
            "weight",
            "product_outputs",
            "pattern",
            "in_features",
            "out_features",
            "rewritten",
            "reason_code",
            "reason"
        ]
    );
    assert_eq!(layers[0]["in_features"], 16);
    assert_eq!(layers[0]["out_features"], 48);
    let tied = layers.last().unwrap();
    assert_eq!((&tied["reason_code"], &tied["rewritten"]), (&"tied-embedding".into(), &false.into()));
}

#[test]
fn list_writes_nothing() {
    let (output, written) = rewrite(&fixture(GPT2), &["--list", "--batch", "8"]);
    assert_eq!((status(&output), written.is_none()), (0, true));
    let table = text(&output.stdout);
    assert_eq!(table.lines().count(), 6, "{table}");
    let first = table.lines().nth(1).unwrap();
    // 56 rows of 16 inputs in the n x n form: (16² · 56 + 16³/3 + 2 · 16² · 48) / (2 · 56 · 16 · 48)
    assert!(first.contains("unk__0*7") && first.contains("+46.8 %"), "{first}");
    let path = fixture(GPT2);
    let listed = run(&[path.to_str().unwrap(), "--list", "--json"]);
    assert_eq!(serde_json::from_slice::<Value>(&listed.stdout).unwrap()["output"], Value::Null);
}

#[test]
fn the_plain_gradient_has_no_extra_cost() {
    for arguments in [&["--list", "--batch", "8"][..], &["--list"]] {
        let (output, _) = rewrite(&fixture(GPT2), &[arguments, &["--method", "gradient"]].concat());
        let table = text(&output.stdout);
        assert_eq!(status(&output), 0);
        assert!(!table.contains("extra cost") && !table.contains('%') && !table.contains("--batch"), "{table}");
        assert!(table.contains("(--method gradient costs nothing beyond the plain products)\n"), "{table}");
        let first = table.lines().nth(1).unwrap();
        assert!(first.contains(" unk__0*7 ") && first.ends_with(" not-selected"), "{first}");
    }
}

#[test]
fn what_is_meant_otherwise_is_doubted() {
    let doubts = |arguments: &[&str]| {
        let (output, written) = rewrite(&fixture(MLP), arguments);
        assert_eq!((status(&output), written.is_some()), (0, true), "{arguments:?}");
        text(&output.stderr)
    };
    for arguments in
        [&["--layers", "first:3"][..], &["--layers", "last:1"], &["--method", "gradient"], &["--lambda", "2"]]
    {
        assert_eq!(doubts(arguments), "", "{arguments:?}");
    }
    for (selector, expected) in [("first:99", "3 of 3"), ("last:4", "3 of 3")] {
        let said = doubts(&["--layers", selector, "--layers", "1"]);
        let warning = format!("warning: --layers '{selector}' takes all layers, of which there are 3\n");
        assert_eq!(said, format!("isaac-rewrite: {warning}"));
        let (output, _) = rewrite(&fixture(MLP), &["--layers", selector]);
        assert!(text(&output.stdout).starts_with(expected));
    }
    let said =
        doubts(&["--method", "gradient", "--layers", "first:99", "--with-bias", "--allow", "derived", "--lambda", "1"]);
    let warnings = ["--layers", "--allow", "--with-bias", "--lambda"].map(|option| {
        format!("isaac-rewrite: warning: {option} has no effect: --method gradient conditions no layer\n")
    });
    assert_eq!(said, warnings.concat());
}

#[test]
fn layers_are_selected_and_allowed() {
    let rewritten = |fixture_name: &str, arguments: &[&str]| {
        let (output, _) = rewrite(&fixture(fixture_name), &[arguments, &["--json"]].concat());
        let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
        let layers = report["layers"].as_array().unwrap().iter();
        let indices: Vec<u64> =
            layers.filter(|layer| layer["rewritten"] == true).map(|l| l["index"].as_u64().unwrap()).collect();
        indices
    };
    assert_eq!(rewritten(MLP, &["--layers", "first:1", "--layers", "4.weight"]), [1, 3]);
    assert_eq!(rewritten(MLP, &["--layers", "even"]), [2]);
    assert_eq!(rewritten(MLP, &["--method", "gradient"]), [0_u64; 0]);
    assert_eq!(rewritten(GPT2, &["--allow", "tied-embedding", "--layers", "last:1"]), [5]);
    assert_eq!(rewritten("lora_merged_ts17/training_model.onnx", &["--allow", "derived"]), [1, 2, 3, 4]);
    // Both factors of a merged weight share one product: it is replaced for both or for none.
    assert_eq!(
        rewritten("lora_merged_ts17/training_model.onnx", &["--allow", "derived", "--layers", "0.A"]),
        [0_u64; 0]
    );
    assert_eq!(rewritten("tied_ae_ts17/training_model.onnx", &["--allow", "tied-transpose"]), [1]);
}

#[test]
fn nothing_chosen_gives_the_same_file() {
    let (_, written) = rewrite(&fixture(MLP), &["--method", "gradient"]);
    let bytes = written.unwrap().to_bytes(&isaac::model::Edit::default());
    assert!(bytes == std::fs::read(fixture(MLP)).unwrap());
}

#[test]
fn explain_gives_reasons() {
    let (output, _) = rewrite(&fixture("clip_contrastive_ts17/training_model.onnx"), &["--explain"]);
    let explanation = text(&output.stdout);
    assert!(
        explanation
            .contains("Gemm '/MatMul_Grad/Gemm_1': not taken: it is the gradient of a product of two activations")
    );
    assert!(explanation.contains("1 i.weight: rewritten (i.weight_grad)"));
    let (output, _) = rewrite(&fixture("lora_merged_ts17/training_model.onnx"), &["--explain", "--json"]);
    assert!(serde_json::from_slice::<Value>(&output.stdout).is_ok());
    assert!(text(&output.stderr).contains("1 0.A: left alone (derived)"));
}

/// An LSTM is written out: a product in every step, and of its backward pass one more.
#[test]
fn explain_says_once_what_holds_for_every_step_of_a_sequence() {
    for name in ["lstm_ts17", "gru_ts13"] {
        let (output, _) = rewrite(&export(name), &["--loss", "cross-entropy", "--explain"]);
        let explanation = text(&output.stdout);
        let near_misses: Vec<&str> = explanation.lines().filter(|line| line.contains(": not taken: ")).collect();
        let layers = explanation.lines().filter(|line| line.contains(": rewritten (")).count();
        assert!(layers > 1 && near_misses.len() <= layers, "{explanation}");
        let what = ": not taken: it is the gradient of a layer's input: a weight times the gradient of the output";
        assert!(near_misses.iter().all(|line| line.ends_with(what)), "{explanation}");
        let several =
            near_misses.iter().filter(|line| line.contains(" products with '") && line.contains("', MatMul '"));
        assert!(several.count() > 0, "{explanation}");
    }
}

#[test]
fn a_wrong_command_line_is_status_2_and_says_what_is_right() {
    for (arguments, message) in [
        (&["--lambda", "0"][..], "above 0"),
        (&["--lambda", "nan"], "above 0"),
        (&["--lambda=-1"], "above 0"),
        (&["--layers", "conv*"], "matches no layer; the layers are: 1 0.weight, 2 2.weight, 3 4.weight"),
        (&["--layers", "7"], "matches no layer"),
        (&["--layers", "first:0"], "whole numbers from 1"),
        (&["--allow", "opaque"], "tied-transpose, tied-embedding, derived, other-term"),
        (&["--param", "weights.*"], "0.weight"),
        (&["--batch", "8"], "--list"),
        (&["--list", "--batch", "0"], "0"),
        (&["--method", "zeta"], "second backward pass"),
        (&["--lambda-g", "1"], "--method zeta"),
        (&["--no-such-flag"], "--no-such-flag"),
    ] {
        let (output, written) = rewrite(&fixture(MLP), arguments);
        assert_eq!((status(&output), written.is_none()), (2, true), "{arguments:?}");
        assert!(text(&output.stderr).contains(message), "{arguments:?}: {}", text(&output.stderr));
    }
    assert_eq!(status(&run(&[fixture(MLP).to_str().unwrap()])), 2);
}

#[test]
fn a_wrong_model_is_status_1_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let damaged = folder.path().join("damaged.onnx");
    let whole = std::fs::read(fixture(MLP)).unwrap();
    std::fs::write(&damaged, &whole[..whole.len() / 2]).unwrap();
    let cyclic = folder.path().join("cyclic.onnx");
    let nodes = vec![NodeExt::build("", "Relu", &["b"], &["a"]), NodeExt::build("", "Relu", &["a"], &["b"])];
    std::fs::write(&cyclic, model(nodes, Vec::new(), vec![tensor("b", &[1])]).encode_to_vec()).unwrap();
    for (path, message) in [
        (folder.path().join("none.onnx"), "No such file"),
        (damaged, "truncated"),
        (cyclic, "cycle through Relu 'a'"),
        (fixture("mlp_gemm_ts17/forward.onnx"), "is a forward model"),
        (fixture("mlp_gemm_ts17/eval_model.onnx"), "is a forward model"),
        (fixture("mlp_gemm_ts17/checkpoint"), "not an ONNX model"),
    ] {
        let (output, written) = rewrite(&path, &[]);
        let error = text(&output.stderr);
        assert_eq!((status(&output), written.is_none()), (1, true), "{}: {error}", path.display());
        assert!(error.contains(message) && error.contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn an_unmet_expectation_is_status_3_and_writes_nothing() {
    let (output, written) = rewrite(&fixture(MLP), &["--expect", "4"]);
    assert_eq!((status(&output), written.is_none()), (3, true));
    assert!(text(&output.stderr).contains("3 layers"));
}

#[test]
fn a_full_disk_is_an_error_and_the_old_output_stays() {
    // No file may grow beyond one block of 512 bytes: the system refuses to write more, as it does on a full disk.
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out.onnx");
    std::fs::write(&target, "old").unwrap();
    let program = env!("CARGO_BIN_EXE_isaac-rewrite");
    let script = "trap '' XFSZ; ulimit -f 1; exec \"$@\"";
    let output = Command::new("sh")
        .args(["-c", script, "sh", program, fixture(MLP).to_str().unwrap(), "-o", target.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(status(&output), 1);
    assert!(text(&output.stderr).contains("nothing was changed: File too large"), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "old");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let path = fixture(GPT2);
    let mut child = Command::new(env!("CARGO_BIN_EXE_isaac-rewrite"))
        .args([path.to_str().unwrap(), "--list", "--explain"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((status(&output), text(&output.stderr).as_str()), (0, ""));
}
