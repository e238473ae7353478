// Every kernel in one translation unit: what the three builds compile.

#include "adapt.cu"
#include "centre.cu"
#include "cholesky.cu"
#include "class_sums.cu"
#include "fit.cu"
#include "moment.cu"
#include "predict.cu"
#include "preprocess.cu"
#include "product.cu"
#include "solution.cu"
#include "transform.cu"
