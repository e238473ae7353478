// A tile of a product that is summed over rows: C[i][j] += sum_k A[k][i] B[k][j], with both panels in shared memory.
#pragma once

#include "linear.cuh"

constexpr int TILE = 64;  // rows and columns of C that a block makes at once
// Rows of a panel: on the host both panels fit the first-level cache.
template <typename T> constexpr int DEPTH = LANES == 1 ? 16384 / TILE / (int)sizeof(T) : 32;

// Columns `from` to `from` + TILE of `depth` rows, `width` long, to a panel; zeros past their end. A warp a row.
template <typename T>
DEVICE void stage(T* panel, const T* rows, size_t stride, int depth, int from, int width) {
  const int valid = width - from < TILE ? width - from : TILE;
  for (int k = warp(); k < depth; k += WARPS) {
    for (int d = warp_lane(); d < valid; d += WARP) panel[k * TILE + d] = rows[k * stride + from + d];
    for (int d = valid + warp_lane(); d < TILE; d += WARP) panel[k * TILE + d] = 0;
  }
}

// Numbers of C that a lane keeps: OWN micro-tiles of RM x RN; one of 4 x 4 on a GPU.
template <typename T> struct Tile {
  static constexpr int RM = 4, RN = LANES == 1 ? 2 * VEC<T> : 4, ACROSS = TILE / RN;
  static constexpr int OWN = TILE / RM * ACROSS / LANES;
  T sums[OWN][RM][RN] = {};

  // Add up `depth` rows of two panels (depth, TILE). With `lower` the host leaves out what lies above the diagonal;
  // on a GPU its lanes would wait for the others all the same.
  DEVICE_MEMBER void add(const T* A, const T* B, int depth, bool lower = false) {
    for (int q = 0; q < OWN; ++q) {
      const int micro = lane() + q * LANES;
      if (LANES == 1 && lower && micro % ACROSS * RN > micro / ACROSS * RM + RM - 1) continue;
      const T *a = A + micro / ACROSS * RM, *b = B + micro % ACROSS * RN;
      Vec<T> part[RM][RN / VEC<T>] = {};
      for (int k = 0; k < depth; ++k) {
        Vec<T> right[RN / VEC<T>];
        for (int c = 0; c < RN / VEC<T>; ++c) right[c] = load<T>(b + k * TILE + c * VEC<T>);
        for (int r = 0; r < RM; ++r)
          for (int c = 0; c < RN / VEC<T>; ++c) part[r][c] += a[k * TILE + r] * right[c];
      }
      for (int r = 0; r < RM; ++r)
        for (int c = 0; c < RN / VEC<T>; ++c) {
          T out[VEC<T>];
          store<T>(out, part[r][c]);
          for (int v = 0; v < VEC<T>; ++v) sums[q][r][c * VEC<T> + v] += out[v];
        }
    }
  }

  // visit(i, j, number) for all that this lane keeps.
  template <typename Visit> DEVICE_MEMBER void each(Visit visit) {
    for (int q = 0; q < OWN; ++q)
      for (int r = 0; r < RM; ++r)
        for (int c = 0; c < RN; ++c) {
          const int micro = lane() + q * LANES;
          visit(micro / ACROSS * RM + r, micro % ACROSS * RN + c, sums[q][r][c]);
        }
  }
};

// Tile number t of the lower triangle of tiles, row by row: its row and column.
DEVICE void triangle(int t, int* row, int* column) {
  int i = 0;
  while ((i + 1) * (i + 2) / 2 <= t) ++i;
  *row = i, *column = t - i * (i + 1) / 2;
}
