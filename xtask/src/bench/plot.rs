//! The results as a picture: latency, throughput, memory, growth. It is a small SVG that follows
//! the page: light or dark.

mod growth;
mod picture;

use std::fmt::Write as _;

use serde_json::Value;

use picture::{BAR, LEFT, Picture, RIGHT, WIDTH};

/// The colours of page and text, which follow the reader's choice.
const STYLE: &str = "text{fill:#111}.page{fill:#fff}\
                     @media(prefers-color-scheme:dark){text{fill:#e6edf3}.page{fill:#0d1117}}";

const CONTENDERS: [(&str, &str, &str); 3] =
    [("relay", "relay", "#2563eb"), ("bare", "bare SQS", "#d97706"), ("pipe", "pipe", "#8b949e")];

/// Draws the whole plot.
pub(super) fn plot(results: &Value) -> String {
    let mut picture = Picture { body: String::new(), y: 0.0 };
    legend(&mut picture);
    latency(&mut picture, results);
    throughput(&mut picture, results);
    memory(&mut picture, results);
    growth::draw(&mut picture, results);
    let height = picture.y + 20.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" font-family=\"sans-serif\">\n\
         <style>{STYLE}</style>\n<rect class=\"page\" width=\"{WIDTH}\" height=\"{height:.0}\"/>\n{}</svg>\n",
        picture.body
    )
}

fn legend(picture: &mut Picture) {
    picture.y = 24.0;
    let mut x = LEFT;
    for (_, name, colour) in CONTENDERS {
        picture.rect(x, 20.0, colour, 1.0);
        picture.text(x + 28.0, "start", 12, name);
        x += 120.0;
    }
}

/// Draws p50 to p99 of each rate on a logarithmic scale.
fn latency(picture: &mut Picture, results: &Value) {
    let Some(rows) = results["latency"]["rows"].as_array() else { return };
    picture.title("A line written → printed: p50 (dark) to p99 (light), milliseconds, logarithmic");
    let (low, high) = (0.01_f64, 1_000.0_f64);
    let x = |ms: f64| LEFT + (ms.clamp(low, high) / low).log10() / (high / low).log10() * (WIDTH - LEFT - RIGHT);
    for row in rows {
        let far = if row["far"] == true { ", SQS 5–15 ms away" } else { "" };
        picture.label(&format!("{} lines/s{far}", row["per_second"]));
        for (at, (who, _, colour)) in CONTENDERS.into_iter().enumerate() {
            let ms = |field: &str| row[who][field].as_f64().map(|us| us / 1_000.0);
            let (Some(p50), Some(p99)) = (ms("p50_us"), ms("p99_us")) else { continue };
            picture.y += if at == 0 { 0.0 } else { BAR };
            picture.rect(LEFT, x(p99) - LEFT, colour, 0.35);
            picture.rect(LEFT, x(p50) - LEFT, colour, 1.0);
            picture.text(x(p99) + 6.0, "start", 11, &format!("{p50:.1} / {p99:.1}"));
        }
    }
}

fn throughput(picture: &mut Picture, results: &Value) {
    let Some(rows) = results["throughput"].as_array() else { return };
    picture.title("Sustained output, MB/s, logarithmic");
    let (low, high) = (1.0_f64, 10_000.0_f64);
    let x = |speed: f64| LEFT + (speed.clamp(low, high) / low).log10() / (high / low).log10() * (WIDTH - LEFT - RIGHT);
    for row in rows {
        let secrets = if row["secrets"].as_u64() > Some(0) { ", secrets masked" } else { "" };
        picture.label(&format!("{}{secrets}", row["what"].as_str().unwrap_or_default()));
        for (at, (who, _, colour)) in CONTENDERS.into_iter().enumerate() {
            let Some(speed) = row[format!("{who}_mb_s")].as_f64() else { continue };
            picture.y += if at == 0 { 0.0 } else { BAR };
            picture.rect(LEFT, x(speed) - LEFT, colour, 1.0);
            picture.text(x(speed) + 6.0, "start", 11, &format!("{speed:.0}"));
        }
    }
}

/// Draws the resident memory during the first throughput row, with the limits as lines.
fn memory(picture: &mut Picture, results: &Value) {
    let memory = &results["throughput"][0]["memory"];
    let points = |who: &str| -> Vec<(f64, f64)> {
        let curve = memory[who]["curve"].as_array().into_iter().flatten();
        curve.filter_map(|point| Some((point[0].as_f64()?, point[1].as_f64()?))).collect()
    };
    let curves = [("runner", "#059669", 48.0), ("cli", "#7c3aed", 32.0)]
        .map(|(who, colour, limit)| (who, colour, limit, points(who)));
    let end = curves.iter().filter_map(|(.., points)| points.last()).map(|point| point.0).fold(0.0, f64::max);
    if end <= 0.0 {
        return;
    }
    picture.title("Resident memory over the run with text, MiB (dashed: what is allowed)");
    let most = curves.iter().flat_map(|(.., points)| points).map(|point| point.1).fold(64.0, f64::max) * 1.1;
    let (top, height) = (picture.y + 10.0, 150.0);
    let place = |at: f64, mib: f64| (LEFT + at / end * (WIDTH - LEFT - RIGHT), top + height * (1.0 - mib / most));
    for (who, colour, limit, points) in curves {
        let line: Vec<String> =
            points.iter().map(|(at, mib)| place(*at, *mib)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        picture.line(&line.join(" "), colour);
        let (right, y) = place(end, limit);
        let _ = writeln!(
            picture.body,
            r#"<line x1="{LEFT}" y1="{y:.1}" x2="{right:.1}" y2="{y:.1}" stroke="{colour}" stroke-dasharray="4 4"/>"#
        );
        picture.y = y + 4.0;
        picture.text(LEFT - 10.0, "end", 12, &format!("{who}, limit {limit:.0}"));
    }
    picture.y = top + height + 16.0;
    picture.text(LEFT, "start", 11, "0 s");
    picture.text(WIDTH - RIGHT, "end", 11, &format!("{end:.0} s"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_longer_time_is_a_longer_bar_and_what_is_missing_is_left_out() {
        let width = |us: u64| {
            let times = json!({ "p50_us": us, "p99_us": us });
            let svg = plot(&json!({ "latency": { "rows": [{ "per_second": 1, "relay": times }] } }));
            let bar = svg.lines().rfind(|line| line.starts_with("<rect")).unwrap_or_default().to_owned();
            bar.split("width=\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next()?.parse::<f64>().ok())
                .unwrap_or_default()
        };
        assert!(width(1_000) < width(10_000));
        assert!(plot(&json!({})).ends_with("</svg>\n"));
    }
}
