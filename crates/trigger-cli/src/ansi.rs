//! The tool's output as text for people: what a terminal would show of a line, with its colours and
//! without anything that controls a terminal or hides text.

use anstyle_parse::{Params, Parser, Perform};
use relay_protocol::encoding::is_invisible;

/// How a piece of text looks. The attributes that logs use; others are dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Style {
    /// A colour of the text: 0 to 255 (xterm's palette).
    pub(crate) foreground: Option<u8>,
    /// A colour behind the text.
    pub(crate) background: Option<u8>,
    pub(crate) bold: bool,
    pub(crate) dim: bool,
    pub(crate) italic: bool,
    pub(crate) underline: bool,
}

/// The pieces of one line, without its line break. `style` is how the line begins, and then how the
/// next one does.
pub(crate) fn pieces(line: &[u8], style: &mut Style) -> Vec<(Style, String)> {
    let mut screen = Screen { style: *style, ..Screen::default() };
    let mut parser = Parser::<anstyle_parse::DefaultCharAccumulator>::new();
    // The parser would drop bytes that are no text.
    String::from_utf8_lossy(line).bytes().for_each(|byte| parser.advance(&mut screen, byte));
    *style = screen.style;
    screen.pieces
}

/// The text of some lines alone. The last bytes of a stream may begin in the middle of a line.
pub(crate) fn text(bytes: &[u8]) -> String {
    let mut style = Style::default();
    let line = |line: &[u8]| pieces(line, &mut style).into_iter().map(|(_, text)| text).collect::<String>();
    let lines: Vec<String> = bytes.split(|byte| *byte == b'\n').map(line).collect();
    lines.join("\n")
}

#[derive(Default)]
struct Screen {
    style: Style,
    pieces: Vec<(Style, String)>,
    /// Whether the next character overwrites the line.
    returned: bool,
}

impl Screen {
    fn put(&mut self, text: impl IntoIterator<Item = char>) {
        // A progress bar draws its line again and again: the last drawing counts.
        if std::mem::take(&mut self.returned) {
            self.pieces.clear();
        }
        match self.pieces.last_mut() {
            Some((style, piece)) if *style == self.style => piece.extend(text),
            _ => self.pieces.push((self.style, text.into_iter().collect())),
        }
    }

    /// Applies the codes of one "Select Graphic Rendition" (ECMA-48, 8.3.117).
    fn select(&mut self, codes: &[u16]) {
        let mut codes = codes.iter().copied();
        while let Some(code) = codes.next() {
            let style = &mut self.style;
            match code {
                0 => *style = Style::default(),
                1 => style.bold = true,
                2 => style.dim = true,
                3 => style.italic = true,
                4 => style.underline = true,
                22 => (style.bold, style.dim) = (false, false),
                23 => style.italic = false,
                24 => style.underline = false,
                30..=37 => style.foreground = u8::try_from(code - 30).ok(),
                90..=97 => style.foreground = u8::try_from(code - 82).ok(),
                40..=47 => style.background = u8::try_from(code - 40).ok(),
                100..=107 => style.background = u8::try_from(code - 92).ok(),
                39 => style.foreground = None,
                49 => style.background = None,
                38 => style.foreground = palette(&mut codes),
                48 => style.background = palette(&mut codes),
                _ => {}
            }
        }
    }
}

/// The colour after 38 or 48: `5;N`, or `2;R;G;B` as the nearest of the palette's cube.
fn palette(codes: &mut impl Iterator<Item = u16>) -> Option<u8> {
    match codes.next()? {
        5 => u8::try_from(codes.next()?).ok(),
        2 => {
            let mut level = || Some(codes.next()?.min(255) / 51);
            let (red, green, blue) = (level()?, level()?, level()?);
            u8::try_from(16 + 36 * red + 6 * green + blue).ok()
        }
        _ => None,
    }
}

impl Perform for Screen {
    fn print(&mut self, c: char) {
        if c.is_control() || is_invisible(c) { self.put(c.escape_unicode()) } else { self.put([c]) }
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\r' => self.returned = true,
            b'\t' => self.put(['\t']),
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: u8) {
        match action {
            b'm' if intermediates.is_empty() && !ignore => {
                let codes: Vec<u16> = params.iter().flatten().copied().collect();
                self.select(&codes);
            }
            // "Erase in line", as a progress bar does before it draws again.
            b'K' if self.returned => self.pieces.clear(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_begin_and_end() {
        let mut style = Style::default();
        let found = pieces(b"a\x1b[1;31mred\x1b[0m b \x1b[38;5;200mpink \x1b[48;2;255;0;0mon", &mut style);
        let red = Style { foreground: Some(1), bold: true, ..Style::default() };
        let pink = Style { foreground: Some(200), ..Style::default() };
        let on = Style { background: Some(196), ..pink };
        let texts = [(Style::default(), "a"), (red, "red"), (Style::default(), " b "), (pink, "pink "), (on, "on")];
        assert_eq!(found, texts.map(|(style, text)| (style, text.to_owned())));
        assert_eq!(style, on, "the next line begins as this one ends");
    }

    #[test]
    fn a_terminal_is_not_controlled_and_nothing_is_hidden() {
        let odd = b"one\x07\x1b]0;title\x07\x1b[2J two\x1b[31m \xe2\x80\xaethree\xff\tfour\r\n10%\r\x1b[K20%\r100%\r\n";
        assert_eq!(text(odd), "one two \\u{202e}three\u{fffd}\tfour\n100%\n");
        assert_eq!(text(b"an open \x1b]8;;https://example.com"), "an open ");
        assert_eq!(text(b"\x1b[38;5;999999m\x1b[38m\x1b[mok\x1b["), "ok");
    }
}
