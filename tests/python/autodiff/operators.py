"""The operators whose gradient is tested on the node suite, and what the rules refuse of it."""

COVERED = """
Abs Acos Acosh Add Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike Celu Clip Col2Im Compress Concat Conv ConvTranspose
Cos Cosh CumSum DepthToSpace Div Dropout Einsum Elu Erf Exp Expand Flatten GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool
GlobalMaxPool HardSigmoid HardSwish Identity InstanceNormalization LRN LSTM LayerNormalization LeakyRelu Log LogSoftmax
LpPool MatMul Max MaxPool Mean Min Mish Mod Mul Neg NegativeLogLikelihoodLoss PRelu Pad Pow RNN Reciprocal
ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
ScatterElements ScatterND Selu Sigmoid Sin Sinh Slice Softmax SoftmaxCrossEntropyLoss Softplus Softsign SpaceToDepth Split Sqrt Squeeze
Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Unsqueeze Where
""".split()

# Operators that have no node tests, or none that the reference evaluator computes in double precision: test_spatial.py has functions for them.
TESTED_APART = ["GlobalLpPool", "GroupNormalization", "LpNormalization", "MeanVarianceNormalization"]

# By operator: parts of the messages that may say why a case is refused.
REFUSED = {
    "BatchNormalization": ["not differentiable with respect to its input 3", "not differentiable with respect to its input 4"],
    "Clip": ["not differentiable with respect to its input 1", "not differentiable with respect to its input 2"],
    "DepthToSpace": ["mode CRD"],
    "Dropout": ["not differentiable with respect to its input 1", "without a mask", "imports 11"],
    "GRU": ["its sequences may be shorter"],
    "LSTM": ["its sequences may be shorter"],
    "Mod": ["not differentiable with respect to its input 1"],
    "NegativeLogLikelihoodLoss": ["not differentiable with respect to its input 2"],
    "Pad": ["not differentiable with respect to its input 2"],
    "Resize": [
        "not differentiable with respect to its input 1",
        "not differentiable with respect to its input 2",
        "keep_aspect_ratio_policy",
    ],
    "RNN": ["its sequences may be shorter"],
    "SoftmaxCrossEntropyLoss": ["not differentiable with respect to its input 2"],
}
