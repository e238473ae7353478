// Cholesky factor of a small matrix and its inverse, by one block, in place.
#pragma once

#include "linear.cuh"

// H (n, n), lower triangle -> L with L L^T = H. Column by column; a warp updates a row, a lane an element. `column` (n)
// is scratch: the column lies in one piece there, and nobody reads what another writes.
DEVICE void factor(double* H, int n, double* column) {
  for (int k = 0; k < n; ++k) {
    const double pivot = sqrt(fmax(H[(size_t)k * n + k], 1e-300));
    for (int i = k + lane(); i < n; i += LANES) column[i] = i == k ? pivot : H[(size_t)i * n + k] / pivot;
    sync();
    for (int i = k + warp(); i < n; i += WARPS) {
      double* row = H + (size_t)i * n;
      const double left = column[i];
      if (warp_lane() == 0) row[k] = left;
      for (int j = k + 1 + warp_lane(); j <= i; j += WARP) row[j] -= left * column[j];
    }
    sync();
  }
}

// L (n, n), zero above the diagonal -> L^-1, row by row from the top: row i is made of the rows above and its old self,
// which is kept in `row` (n).
DEVICE void invert(double* L, int n, double* row) {
  for (int i = 0; i < n; ++i) {
    for (int j = lane(); j <= i; j += LANES) row[j] = L[(size_t)i * n + j];
    sync();
    const double inverse = 1 / row[i];
    for (int chunk = 0; chunk < chunks<double>(i); ++chunk)
      combine<double>(chunk, i, L, n, 0, i, [&](int, int k) { return row[k]; },
                      [&](int, int j, double sum) { L[(size_t)i * n + j] = -inverse * sum; });
    if (lane() == 0) L[(size_t)i * n + i] = inverse;
    sync();
  }
}
