//! Ratios as a picture.

use std::fmt::{self, Write};
use std::ops::Range;

use crate::table::Line;

const ROW: f64 = 22.0;
const NAMES: f64 = 640.0;
/// The width of a factor of two.
const OCTAVE: f64 = 80.0;
/// What is beyond is drawn to the edge.
const OCTAVES: f64 = 4.0;

/// A bar for each row, from 1 to its ratio, on a logarithmic scale: to the left what is faster than what it stands beside,
/// to the right what is slower. The thin line is the range of the rounds; the thick one is what the ratio ought to be at
/// most, and the bar is green if it is, red if not.
pub(crate) fn chart(lines: &[Line]) -> String {
    let lines: Vec<&Line> = lines.iter().filter(|line| !line.is_difference).collect();
    let rows = u32::try_from(lines.len()).expect("nobody measures so much");
    let mut svg = Svg::new(NAMES + 2.0 * OCTAVES * OCTAVE + 40.0, f64::from(rows + 2) * ROW);
    for octave in -4..=4 {
        let ratio = 2.0_f64.powi(octave);
        svg.text(place(ratio), 14.0, "middle", &ratio.to_string());
        let colour = if octave == 0 { "black" } else { "lightgray" };
        svg.vertical(place(ratio), 18.0..f64::from(rows + 1) * ROW, 1.0, colour);
    }
    for (row, line) in (1..).zip(lines) {
        draw(&mut svg, line, f64::from(row) * ROW);
    }
    svg.finish()
}

fn draw(svg: &mut Svg, line: &Line, top: f64) {
    let colour = match line.target {
        Some(target) if target.is_met_by(line.ratio) => "seagreen",
        Some(_) => "indianred",
        None => "steelblue",
    };
    let name = format!("{}, beside {}: {:.2}", line.work, line.beside, line.ratio);
    svg.text(NAMES, top + 15.0, "end", &name);
    let (one, ratio) = (place(1.0), place(line.ratio));
    svg.horizontal(one.min(ratio)..one.max(ratio), top + ROW / 2.0, 12.0, colour);
    svg.horizontal(place(line.range.0)..place(line.range.1), top + ROW / 2.0, 1.0, "black");
    if let Some(target) = line.target {
        svg.vertical(place(target.ratio()), top + 2.0..top + 20.0, 2.5, "black");
    }
}

/// Where a ratio is, from the left.
fn place(ratio: f64) -> f64 {
    NAMES + 20.0 + (ratio.log2().clamp(-OCTAVES, OCTAVES) + OCTAVES) * OCTAVE
}

struct Svg(String);

impl Svg {
    fn new(width: f64, height: f64) -> Self {
        let mut svg = Self(String::new());
        let size = format_args!("width=\"{width:.0}\" height=\"{height:.0}\"");
        let font = "font-family=\"sans-serif\" font-size=\"12\"";
        svg.put(format_args!("<svg xmlns=\"http://www.w3.org/2000/svg\" {size} {font}>"));
        svg.put(format_args!("<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"));
        svg
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        self.put(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"));
    }

    fn horizontal(&mut self, x: Range<f64>, y: f64, width: f64, colour: &str) {
        self.line((x.start, y), (x.end, y), width, colour);
    }

    fn vertical(&mut self, x: f64, y: Range<f64>, width: f64, colour: &str) {
        self.line((x, y.start), (x, y.end), width, colour);
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), width: f64, colour: &str) {
        let ends = format!("x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"", from.0, from.1, to.0, to.1);
        self.put(format_args!("<line {ends} stroke=\"{colour}\" stroke-width=\"{width}\"/>"));
    }

    fn put(&mut self, element: fmt::Arguments<'_>) {
        writeln!(self.0, "{element}").expect("text takes what is written to it");
    }

    fn finish(mut self) -> String {
        self.put(format_args!("</svg>"));
        self.0
    }
}
