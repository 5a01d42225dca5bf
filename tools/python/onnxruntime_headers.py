"""ONNX Runtime's C and C++ headers, for compiling the C++ example.

The Python wheels ship the library without its headers. A Unity package on npm carries the released headers as
Microsoft publishes them for iOS; only those are taken out of it.
"""

import npm

PACKAGE = "com.github.asus4.onnxruntime@0.4.9"
FOLDER = "Plugins/iOS~/onnxruntime.xcframework/ios-arm64_x86_64-simulator/onnxruntime.framework/Headers"
SHA256 = {
    "onnxruntime_c_api.h": "acc0cf4b3f28d39339c76770d76164bb7a0637dc89f5fde764b4017b632f6743",
    "onnxruntime_cxx_api.h": "9c63ed5bf0427ddf1c10a99aca0beeec77318ce77d2ea6f7ae76d7d933660f67",
    "onnxruntime_cxx_inline.h": "c508dbb7d8203003a2584b8712118cb88e5b4ef1e1c7876a9974156fb7489301",
    "onnxruntime_ep_c_api.h": "e6c986c9e98583f8113b2c6bc3864814883b806d501cf24da4d239c45753e235",
    "onnxruntime_error_code.h": "5ce3b054e798eced8d14f5b86e98692fd33470463f96194ce0700a2d53dd8721",
    "onnxruntime_float16.h": "88b242845d25981633a0bbd1c148e273cf8bfb016ea3f57c4af41a06530f72b0",
}


def fetch(folder):
    """Downloads the headers into `folder`, unless they are there already."""
    npm.fetch(PACKAGE, {name: (f"{FOLDER}/{name}", sha256) for name, sha256 in SHA256.items()}, folder)
