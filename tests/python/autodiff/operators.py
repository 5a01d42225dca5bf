"""The operators whose gradient is tested on the node suite, and what the rules refuse of it."""

COVERED = """
Abs Acos Acosh Add Asin Asinh Atan Atanh Attention AveragePool BatchNormalization Cast CastLike CausalConvWithState Celu CenterCropPad
Clip Col2Im Compress Concat Conv ConvTranspose Cos Cosh CumProd CumSum DepthToSpace Det Div Dropout Einsum Elu Erf Exp Expand Flatten GRU
Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool GridSample HardSigmoid HardSwish Hardmax Identity
InstanceNormalization LRN LSTM LayerNormalization LeakyRelu LinearAttention Log LogSoftmax LpPool MatMul Max MaxPool MaxUnpool Mean Min
Mish Mod Mul Neg NegativeLogLikelihoodLoss PRelu Pad Pow RMSNormalization RNN Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize RotaryEmbedding ScatterElements ScatterND Selu
Shrink Sigmoid Sin Sinh Slice Softmax SoftmaxCrossEntropyLoss Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum SwiGLU Swish Tan
Tanh TensorScatter ThresholdedRelu Tile TopK Transpose Unsqueeze Where
""".split()

# Operators that have no node tests in floating point, or none that the reference evaluator computes: test_spatial.py and test_written_out.py have
# functions for them.
TESTED_APART = ["GlobalLpPool", "GroupNormalization", "If", "Loop", "LpNormalization", "MeanVarianceNormalization", "Scan", "Trilu"]

# Operators that ONNX calls differentiable and that have no rule, with the reason.
NOT_COVERED = {
    "MaxRoiPool": "it does not tell which elements it took, and to find them again, every element of the image has to be compared with every bin of "
    "every region",
    "Scatter": "it is deprecated; of a forward model of opset 10 or before, it is upgraded to ScatterElements, which has a rule",
}

# By operator: parts of the messages that may say why a case is refused, besides that ONNX calls an input not differentiable.
REFUSED = {
    "Attention": ["a cache of keys", "lengths of its keys", "it gives more than its first output", "a sliding window"],
    "AveragePool": ["depends on sizes"],
    "Dropout": ["without a mask", "imports 11"],
    "GRU": ["its sequences may be shorter"],
    "LSTM": ["its sequences may be shorter"],
    "MaxUnpool": ["with output_shape"],
    "Resize": ["keep_aspect_ratio_policy"],
    "RNN": ["its sequences may be shorter"],
}
