//! What the provider links with and never calls with what the tests give it.
use crate::entry::NOT_SUPPORTED;

macro_rules! absent {
    ($($name:ident)*) => {
        exported! {$(
            fn $name() {
                eprintln!("{} was called, which stand-ins don't have", stringify!($name));
                return Err(NOT_SUPPORTED);
            }
        )*}
    };
}

absent! {
    __cudaGetKernel
    __cudaLaunchKernel
    __cudaPopCallConfiguration
    __cudaPushCallConfiguration
    cuTensorMapEncodeTiled
    cublasDgeam
    cublasDgemmBatched
    cublasDgemmStridedBatched
    cublasDgemm_v2
    cublasDgetrfBatched
    cublasDgetriBatched
    cublasGemmBatchedEx
    cublasGemmStridedBatchedEx
    cublasLtMatmul
    cublasLtMatmulAlgoConfigSetAttribute
    cublasLtMatmulAlgoGetHeuristic
    cublasLtMatmulAlgoInit
    cublasLtMatmulDescCreate
    cublasLtMatmulDescDestroy
    cublasLtMatmulDescSetAttribute
    cublasLtMatmulPreferenceCreate
    cublasLtMatmulPreferenceDestroy
    cublasLtMatmulPreferenceSetAttribute
    cublasLtMatrixLayoutCreate
    cublasLtMatrixLayoutDestroy
    cublasLtMatrixLayoutSetAttribute
    cublasLtMatrixTransform
    cublasLtMatrixTransformDescCreate
    cublasLtMatrixTransformDescDestroy
    cublasScopy_v2
    cublasSgeam
    cublasSgemmBatched
    cublasSgemmStridedBatched
    cublasSgetrfBatched
    cublasSgetriBatched
    cublasSscal_v2
    cudaEventElapsedTime
    cudaEventRecordWithFlags
    cudaFuncGetAttributes
    cudaGetDriverEntryPointByVersion
    cudaGraphDestroy
    cudaGraphExecDestroy
    cudaGraphInstantiate
    cudaGraphLaunch
    cudaKernelSetAttributeForDevice
    cudaLaunchCooperativeKernel
    cudaLaunchKernelExC
    cudaLibraryGetKernel
    cudaLibraryLoadData
    cudaLibraryUnload
    cudaMemPoolGetAttribute
    cudaMemcpy2DAsync
    cudaMemcpyFromSymbol
    cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags
    cudaStreamBeginCapture
    cudaStreamEndCapture
}
