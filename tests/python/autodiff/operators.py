"""The operators whose gradient is tested on the node suite, and what the rules refuse of it."""

COVERED = """
Abs Acos Acosh Add Asin Asinh Atan Atanh BatchNormalization Cast CastLike Celu Clip Compress Concat Conv Cos Cosh CumSum DepthToSpace
Div Dropout Einsum Elu Erf Exp Expand Flatten GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool HardSigmoid
HardSwish Identity InstanceNormalization LSTM LayerNormalization LeakyRelu Log LogSoftmax MatMul Max Mean Min Mish Mod Mul Neg
NegativeLogLikelihoodLoss PRelu Pad Pow RNN Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
ReduceProd ReduceSum ReduceSumSquare Relu Reshape ScatterElements ScatterND Selu Sigmoid Sin Sinh Slice Softmax SoftmaxCrossEntropyLoss
Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Unsqueeze Where
""".split()

# By operator: parts of the messages that may say why a case is refused.
REFUSED = {
    "BatchNormalization": ["not differentiable with respect to its input 3", "not differentiable with respect to its input 4"],
    "Clip": ["not differentiable with respect to its input 1", "not differentiable with respect to its input 2"],
    "DepthToSpace": ["mode CRD"],
    "Dropout": ["not differentiable with respect to its input 1", "its ratio is not constant", "without a mask", "imports 11"],
    "GRU": ["its sequences may be shorter"],
    "LSTM": ["its sequences may be shorter"],
    "Mod": ["not differentiable with respect to its input 1"],
    "NegativeLogLikelihoodLoss": ["not differentiable with respect to its input 2"],
    "Pad": ["not differentiable with respect to its input 2"],
    "RNN": ["its sequences may be shorter"],
    "SoftmaxCrossEntropyLoss": ["not differentiable with respect to its input 2"],
}
