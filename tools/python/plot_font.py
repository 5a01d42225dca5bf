"""The font of plots: the letters of DejaVu Sans that names of runs, models and metrics are written in.

    python tools/python/plot_font.py        # makes src/train/report/plot/font/ anew; needs fonttools 4.68.0 and npm

Latin, Greek and Cyrillic letters, punctuation and mathematical operators, without hints: a tenth of the whole font. What is not in it is
drawn as a box.
"""

import tempfile
from pathlib import Path

from fontTools import subset

import npm

PACKAGE = "dejavu-fonts-ttf@2.37.3"
FOLDER = Path(__file__).resolve().parents[2] / "src/train/report/plot/font"
FONT, LICENSE = "DejaVuSans.ttf", "LICENSE"
MEMBERS = {
    FONT: ("ttf/DejaVuSans.ttf", "7da195a74c55bef988d0d48f9508bd5d849425c1770dba5d7bfc6ce9ed848954"),
    LICENSE: ("LICENSE", "7a083b136e64d064794c3419751e5c7dd10d2f64c108fe5ba161eae5e5958a93"),
}
# Basic Latin to Latin Extended-A; Greek and Cyrillic; punctuation to arrows; mathematical operators.
RANGES = [(0x20, 0x17F), (0x370, 0x45F), (0x2010, 0x2044), (0x2070, 0x209C), (0x2190, 0x2193), (0x2200, 0x22FF)]


def main():
    with tempfile.TemporaryDirectory() as scratch:
        npm.fetch(PACKAGE, MEMBERS, scratch)
        options = subset.Options(hinting=False, layout_features=[], name_IDs=["*"], notdef_outline=True, recalc_timestamp=False)
        options.drop_tables += ["FFTM"]
        font = subset.load_font(Path(scratch, FONT), options)
        subsetter = subset.Subsetter(options)
        subsetter.populate(unicodes=[code for first, last in RANGES for code in range(first, last + 1)])
        subsetter.subset(font)
        FOLDER.mkdir(exist_ok=True)
        subset.save_font(font, FOLDER / FONT, options)
        (FOLDER / LICENSE).write_bytes(Path(scratch, LICENSE).read_bytes())


if __name__ == "__main__":
    main()
