// Sums of each class's samples.
//
//   sums[k] = sum of U[i] over the rows of class k          U (N, D) float32 -> sums (K, D) float64
//
// A block takes a chunk of the dimensions of one class; a lane adds up its own dimensions, row after row.

#include "linear.cuh"

KERNEL(class_sums, ClassSumsParams) {
  const int parts = chunks<double>(p.D);
  for (int task = block(); task < p.K * parts; task += blocks()) {
    const int k = task / parts;
    combine<double>(task % parts, p.D, p.U, p.D, p.starts[k], p.starts[k + 1], [](int, int) { return 1.0; },
                    [&](int, int d, double sum) { p.sums[(size_t)k * p.D + d] = sum; });
  }
}
