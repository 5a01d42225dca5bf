use super::*;

const CLASSES: Labels = Labels::Classes { class_axis: None, ignore_index: None };

fn waves(count: usize) -> Vec<f64> {
    (0..count).map(|i| (1.7 * i as f64).sin()).collect()
}

/// The values of these examples, fed in batches of 7.
fn values(metrics: &[Metric], labels: Labels, prediction: &Tensor, actual: &Tensor) -> Vec<f64> {
    let mut evaluation = Accumulator::new(metrics, labels).unwrap();
    let rows: Vec<usize> = (0..prediction.shape()[0]).collect();
    for batch in rows.chunks(7) {
        evaluation.add(&prediction.rows(batch), &actual.rows(batch)).unwrap();
    }
    evaluation.values().into_iter().map(|(_, value)| value).collect()
}

fn assert_close(values: &[f64], expected: &[f64]) {
    assert_eq!(values.len(), expected.len());
    for (value, expected) in values.iter().zip(expected) {
        assert!((value - expected).abs() < 1e-13, "{values:?} is not {expected:?}");
    }
}

/// The class of the largest of `classes` waves, but of every so many examples another one.
fn labels_of(logits: &[f64], classes: usize, every: usize, other: fn(usize) -> usize) -> Vec<i64> {
    let largest = |row: &[f64]| (0..classes).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
    let label = |(i, row)| if i % every == 0 { other(i) % classes } else { largest(row) };
    logits.chunks(classes).enumerate().map(label).map(|class| class as i64).collect()
}

// The expected values are those of scikit-learn 1.9.1 and SciPy 1.17.1:
//
//     i, waves = np.arange(60), lambda count: np.sin(1.7 * np.arange(count))
//     logits = waves(240).reshape(60, 4); p = logits.argmax(1); t = np.where(i % 3 == 0, (i * i // 3 + i) % 4, p)
//     accuracy_score(t, p), f1_score(t, p, average="macro"), matthews_corrcoef(t, p)
//     logits = waves(120).reshape(60, 2); p = logits.argmax(1); t = np.where(i % 4 == 0, i * i // 3 % 2, p)
//     accuracy_score(t, p), f1_score(t, p), matthews_corrcoef(t, p)
//     p = waves(60) > 0; t = np.where(i % 4 == 0, i // 4 % 2, p)         # the same three
//     x = waves(60).round(1); y = (x + 0.5 * np.cos(2.3 * i)).round(1)   # with many equal elements
//     pearsonr(x, y)[0], spearmanr(x, y)[0], np.mean((x - y) ** 2), np.mean(np.abs(x - y))

const CLASS_METRICS: [Metric; 3] = [Metric::Accuracy, Metric::F1, Metric::Mcc];
const FOUR_CLASSES: [f64; 3] = [0.6666666666666666, 0.6843681626290322, 0.5654826773220868];

fn four_classes() -> (Vec<f64>, Vec<i64>) {
    let logits = waves(240);
    let labels = labels_of(&logits, 4, 3, |i| i * i / 3 + i);
    (logits, labels)
}

#[test]
fn four_classes_as_scikit_learn() {
    let (logits, labels) = four_classes();
    let (logits, labels) = (Tensor::of(&[60, 4], &logits), Tensor::of(&[60], &labels));
    assert_close(&values(&CLASS_METRICS, CLASSES, &logits, &labels), &FOUR_CLASSES);
}

/// `f1_score([0, 2, 2, 4, 0], [0, 2, 4, 4, 2], average="macro")`, of five classes.
#[test]
fn classes_that_do_not_occur_do_not_count_in_the_mean() {
    let mut logits = [0.0_f32; 25];
    [0, 2, 4, 4, 2].into_iter().enumerate().for_each(|(i, class)| logits[5 * i + class] = 1.0);
    let labels = Tensor::of(&[5], &[0_u8, 2, 2, 4, 0]);
    assert_close(&values(&[Metric::F1], CLASSES, &Tensor::of(&[5, 5], &logits), &labels), &[0.611111111111111]);
}

#[test]
fn two_classes_as_scikit_learn() {
    let logits = waves(120);
    let labels: Vec<i32> = labels_of(&logits, 2, 4, |i| i * i / 3).into_iter().map(|label| label as i32).collect();
    let (logits, labels) = (Tensor::of(&[60, 2], &logits), Tensor::of(&[60], &labels));
    let expected = [0.85, 0.8571428571428571, 0.7035264706814485];
    assert_close(&values(&CLASS_METRICS, CLASSES, &logits, &labels), &expected);
}

#[test]
fn binary_labels_as_scikit_learn() {
    let logits = waves(60);
    let label = |(i, &z): (usize, &f64)| if i % 4 == 0 { (i / 4 % 2) as f32 } else { f32::from(z > 0.0) };
    let labels: Vec<f32> = logits.iter().enumerate().map(label).collect();
    let (logits, labels) = (Tensor::of(&[20, 3], &logits), Tensor::of(&[20, 3], &labels));
    let expected = [0.8833333333333333, 0.8771929824561403, 0.7665748867837461];
    assert_close(&values(&CLASS_METRICS, Labels::Binary, &logits, &labels), &expected);
}

#[test]
fn real_labels_as_scipy() {
    let round = |x: f64| (10.0 * x).round() / 10.0;
    let x: Vec<f64> = waves(60).into_iter().map(round).collect();
    let y: Vec<f64> = x.iter().enumerate().map(|(i, x)| round(x + 0.5 * (2.3 * i as f64).cos())).collect();
    let (x, y) = (Tensor::of(&[30, 2], &x), Tensor::of(&[30, 2], &y));
    let metrics = [Metric::Pearson, Metric::Spearman, Metric::Mse, Metric::Mae];
    let expected = [0.8855561110502077, 0.8956432003830928, 0.13, 0.32333333333333336];
    assert_close(&values(&metrics, Labels::Real, &x, &y), &expected);
}

#[test]
fn classes_along_any_axis_with_labels_that_do_not_count() {
    let (logits, labels) = four_classes();
    // 10 examples of 4 classes at 6 places, the classes along the middle axis; at each seventh place, a label that does not count.
    let mut at_places = vec![f64::NAN; 10 * 4 * 7];
    let mut labels_at_places = vec![-100_i64; 10 * 7];
    for token in 0..60 {
        let (example, place) = (token / 6, token % 6);
        labels_at_places[example * 7 + place] = labels[token];
        for class in 0..4 {
            at_places[(example * 4 + class) * 7 + place] = logits[token * 4 + class];
        }
    }
    let kind = |class_axis| Labels::Classes { class_axis, ignore_index: Some(-100) };
    let (prediction, labels) = (Tensor::of(&[10, 4, 7], &at_places), Tensor::of(&[10, 7], &labels_at_places));
    for axis in [1, -2] {
        assert_close(&values(&CLASS_METRICS, kind(Some(axis)), &prediction, &labels), &FOUR_CLASSES);
    }
}

#[test]
fn of_probabilities_the_largest_counts() {
    let (logits, labels) = four_classes();
    let mut probabilities = vec![0.05_f32; 240];
    labels.iter().enumerate().for_each(|(i, &label)| probabilities[i * 4 + label as usize] = 0.85);
    let (logits, probabilities) = (Tensor::of(&[60, 4], &logits), Tensor::of(&[60, 4], &probabilities));
    let kind = Labels::Probabilities { class_axis: None };
    assert_close(&values(&CLASS_METRICS, kind, &logits, &probabilities), &FOUR_CLASSES);
}

#[test]
fn undefined_values_are_nan() {
    let of_no_examples = |metrics: &[Metric], labels| Accumulator::new(metrics, labels).unwrap().values();
    assert!(of_no_examples(&CLASS_METRICS, CLASSES).iter().all(|(_, value)| value.is_nan()));
    let metrics = [Metric::Mse, Metric::Mae, Metric::Pearson, Metric::Spearman];
    assert!(of_no_examples(&metrics, Labels::Real).iter().all(|(_, value)| value.is_nan()));

    let (ramp, equal) = (Tensor::of(&[3], &[0.1, 0.2, 0.3]), Tensor::of(&[3], &[0.1; 3]));
    for (x, y) in [(&ramp, &equal), (&equal, &ramp)] {
        let [mse, _, pearson, spearman] = values(&metrics, Labels::Real, x, y)[..] else { unreachable!() };
        assert!(mse.is_finite() && pearson.is_nan() && spearman.is_nan());
    }

    let zeros = Tensor::of(&[3], &[0_u8; 3]);
    let below_zero = Tensor::of(&[3], &[-1.0_f32; 3]);
    let [accuracy, f1, mcc] = values(&CLASS_METRICS, Labels::Binary, &below_zero, &zeros)[..] else { unreachable!() };
    assert!(accuracy == 1.0 && f1.is_nan() && mcc.is_nan());
}

#[test]
fn a_prediction_that_is_nan_makes_every_value_nan() {
    let logits = Tensor::of(&[2, 2], &[0.5, 1.0, f64::NAN, 1.0]);
    assert!(
        values(&CLASS_METRICS, CLASSES, &logits, &Tensor::of(&[2], &[1_i64, 1])).iter().all(|value| value.is_nan())
    );
    let labels = Tensor::of(&[2, 2], &[1.0; 4]);
    assert!(values(&CLASS_METRICS, Labels::Binary, &logits, &labels).iter().all(|value| value.is_nan()));
    let metrics = [Metric::Mse, Metric::Mae, Metric::Pearson, Metric::Spearman];
    assert!(values(&metrics, Labels::Real, &logits, &labels).iter().all(|value| value.is_nan()));
}

#[test]
fn metrics_fit_their_labels() {
    let message = |metric, labels| Accumulator::new(&[metric], labels).unwrap_err().to_string();
    assert_eq!(
        message(Metric::Pearson, CLASSES),
        "the metric pearson does not fit labels that are class indices; those that do are: accuracy, f1, mcc"
    );
    assert_eq!(
        message(Metric::F1, Distance::L1.into()),
        "the metric f1 does not fit labels that are real numbers; those that do are: pearson, spearman, mse, mae"
    );
}

#[test]
fn names() {
    for metric in Metric::ALL {
        assert_eq!(metric.to_string().parse(), Ok(metric));
    }
    assert_eq!(
        "auc".parse::<Metric>().unwrap_err().to_string(),
        "'auc' is no metric; the metrics are: accuracy, f1, mcc, pearson, spearman, mse, mae"
    );
}

#[test]
fn labels_that_do_not_belong_to_the_predictions() {
    let logits = Tensor::of(&[2, 3], &[0.0_f32; 6]);
    let indices = |ignore_index| Labels::Classes { class_axis: None, ignore_index };
    let axis = |class_axis| Labels::Classes { class_axis: Some(class_axis), ignore_index: None };
    for (kind, labels, expected) in [
        (
            CLASSES,
            Tensor::of(&[2], &[0_i64, 3]),
            "label 3, number 1 of a batch counted from 0, is not one of the 3 classes",
        ),
        (
            indices(Some(7)),
            Tensor::of(&[2], &[7_i64, -1]),
            "label -1, number 1 of a batch counted from 0, is not one of the 3 classes",
        ),
        (
            CLASSES,
            Tensor::of(&[3], &[0_i64; 3]),
            "labels int64[3] do not fit predictions float[2, 3]: their shape is to be [2]",
        ),
        (
            CLASSES,
            Tensor::of(&[2], &[0.0_f32; 2]),
            "labels float[2] do not fit predictions float[2, 3]: class indices are whole numbers",
        ),
        (
            axis(2),
            Tensor::of(&[2], &[0_i64; 2]),
            "labels int64[2] do not fit predictions float[2, 3]: there is no class axis 2",
        ),
        (
            axis(-3),
            Tensor::of(&[2], &[0_i64; 2]),
            "labels int64[2] do not fit predictions float[2, 3]: there is no class axis -3",
        ),
        (
            Labels::Binary,
            Tensor::of(&[2, 3], &[0.5; 6]),
            "label 0.5, number 0 of a batch counted from 0, is not zero or one",
        ),
        (
            Labels::Real,
            Tensor::of(&[2], &[0.5; 2]),
            "labels double[2] do not fit predictions float[2, 3]: there is to be one for each element",
        ),
        (
            Labels::Probabilities { class_axis: None },
            Tensor::of(&[2, 3], &[f64::NAN; 6]),
            "label NaN, number 0 of a batch counted from 0, is not a probability",
        ),
    ] {
        let mut evaluation = Accumulator::new(&[], kind).unwrap();
        assert_eq!(evaluation.add(&logits, &labels).unwrap_err().to_string(), expected);
    }
}
