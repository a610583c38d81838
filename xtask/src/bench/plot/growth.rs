//! Growth as curves, both axes logarithmic: a straight line of slope one is what grows in
//! proportion.

use serde_json::Value;

use super::picture::{LEFT, Picture, RIGHT, WIDTH};
use crate::bench::figures::binary;

const HEIGHT: f64 = 150.0;

/// A curve: its name, its colour, and the field with its values.
type Curve = (&'static str, &'static str, &'static str);

const OF_DEPLOYMENTS: [Curve; 3] = [
    ("seconds until all ended", "#2563eb", "seconds"),
    ("MiB of the whole machine", "#059669", "memory_mib"),
    ("AWS requests", "#d97706", "requests"),
];

const OF_OUTPUT: [Curve; 4] = [
    ("seconds", "#2563eb", "seconds"),
    ("MiB of the runner", "#059669", "runner_mib"),
    ("MiB of the CLI", "#7c3aed", "cli_mib"),
    ("AWS requests", "#d97706", "requests"),
];

/// Draws how everything grows with the deployments at a time, and with the output of one.
pub(super) fn draw(picture: &mut Picture, results: &Value) {
    let part = &results["growth"];
    let number = |value: &Value| value.to_string();
    chart(picture, "Growth with the deployments at a time", &part["deployments"], ("live", &number), &OF_DEPLOYMENTS);
    let size = |value: &Value| {
        let (number, unit) = binary(value.as_u64().unwrap_or_default());
        format!("{number} {unit}")
    };
    chart(picture, "Growth with the output of one deployment", &part["output"], ("bytes", &size), &OF_OUTPUT);
}

/// One chart. `along` is the field of the horizontal axis, and how its values are written.
fn chart(
    picture: &mut Picture,
    title: &str,
    rows: &Value,
    (along, written): (&str, &dyn Fn(&Value) -> String),
    curves: &[Curve],
) {
    let Some(rows) = rows.as_array().filter(|rows| rows.len() > 1) else { return };
    let log = |value: &Value| value.as_f64().filter(|value| *value > 0.0).map(f64::log10);
    let xs: Vec<f64> = rows.iter().filter_map(|row| log(&row[along])).collect();
    let ys = || rows.iter().flat_map(|row| curves.iter().filter_map(|(.., field)| log(&row[field])));
    let (left, right) = xs.iter().fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(*x), high.max(*x)));
    let (low, high) = ys().fold((f64::MAX, f64::MIN), |(low, high), y| (low.min(y), high.max(y)));
    picture.title(title);
    picture.y += 8.0;
    let mut right_of = LEFT;
    for (name, colour, _) in curves {
        picture.rect(right_of, 16.0, colour, 1.0);
        picture.text(right_of + 22.0, "start", 11, name);
        right_of += 170.0;
    }
    let top = picture.y + 24.0;
    let place = |x: f64, y: f64| {
        let along = (x - left) / (right - left).max(f64::EPSILON);
        let up = (y - low) / (high - low).max(f64::EPSILON);
        (LEFT + along * (WIDTH - LEFT - RIGHT), top + HEIGHT * (1.0 - up))
    };
    for (at, (_, colour, field)) in curves.iter().enumerate() {
        // Values stand above one curve and below the next, which may be close.
        let beside = if at % 2 == 0 { -5.0 } else { 13.0 };
        let points: Vec<(f64, f64, f64)> = rows
            .iter()
            .filter_map(|row| Some((place(log(&row[along])?, log(&row[field])?), row[field].as_f64()?)))
            .map(|((x, y), value)| (x, y, value))
            .collect();
        let line: Vec<String> = points.iter().map(|(x, y, _)| format!("{x:.1},{y:.1}")).collect();
        picture.line(&line.join(" "), colour);
        for (x, y, value) in &points {
            picture.y = y + beside;
            picture.text(*x, "middle", 10, &if *value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") });
        }
    }
    picture.y = top + HEIGHT + 30.0;
    for (row, x) in rows.iter().zip(xs) {
        picture.text(place(x, low).0, "middle", 11, &written(&row[along]));
    }
}
