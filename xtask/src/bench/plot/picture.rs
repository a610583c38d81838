//! A picture that is drawn from top to bottom: text, bars, lines.

use std::fmt::Write as _;

pub(super) const WIDTH: f64 = 900.0;
pub(super) const LEFT: f64 = 210.0;
pub(super) const RIGHT: f64 = 90.0;
pub(super) const BAR: f64 = 13.0;

/// The picture, drawn from top to bottom. `y` is the current height.
pub(super) struct Picture {
    pub(super) body: String,
    pub(super) y: f64,
}

impl Picture {
    pub(super) fn text(&mut self, x: f64, anchor: &str, size: u32, text: &str) {
        let _ = writeln!(
            self.body,
            r#"<text x="{x:.0}" y="{:.0}" text-anchor="{anchor}" font-size="{size}">{text}</text>"#,
            self.y
        );
    }

    pub(super) fn rect(&mut self, x: f64, width: f64, colour: &str, opacity: f64) {
        let (y, width) = (self.y - BAR + 3.0, width.max(1.0));
        let _ = writeln!(
            self.body,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{:.1}" fill="{colour}" fill-opacity="{opacity}"/>"#,
            BAR - 2.0
        );
    }

    pub(super) fn line(&mut self, points: &str, colour: &str) {
        let _ = writeln!(self.body, r#"<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>"#);
    }

    pub(super) fn title(&mut self, text: &str) {
        self.y += 34.0;
        self.text(10.0, "start", 15, text);
        self.y += 8.0;
    }

    /// Writes the label of a group of bars, which has one bar for each contender.
    pub(super) fn label(&mut self, text: &str) {
        self.y += BAR + 6.0;
        self.text(LEFT - 10.0, "end", 12, text);
    }
}
