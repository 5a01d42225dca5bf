//! The font that plots are written in.

use std::sync::Once;

use plotters::style::{FontDesc, FontFamily, FontStyle, register_font};

/// Letters of DejaVu Sans, as a machine may have no fonts; `tools/python/plot_font.py` makes the file.
static DEJAVU_SANS: &[u8] = include_bytes!("font/DejaVuSans.ttf");

/// The font at this size. An SVG only names it: whatever shows that takes its own.
pub(super) fn font(size: u32) -> FontDesc<'static> {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        let read = register_font(FontFamily::SansSerif.as_str(), FontStyle::Normal, DEJAVU_SANS);
        assert!(read.is_ok(), "the file is a font");
    });
    FontDesc::new(FontFamily::SansSerif, f64::from(size), FontStyle::Normal)
}
