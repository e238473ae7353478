// The system H = L L^T and what is to be multiplied by H^-1, solved together by blocks.
//
// `assemble` lays out one matrix `system` of n columns: H (n, n), below it the right-hand rows b. The blocked Cholesky
// factorisation carried on below H turns each row b into b L^-T: forward substitution comes with the factor.
//
//   samples up to D (dual)   n = N   H = R R^T + ridge I         rows: K of A R^T, then the last M of the identity
//   more than D (primal)     n = D   H = S + ridge I             rows: M residuals, then K of A
//                                    S = moment - sum_k n_k mu_k mu_k^T + sum_k n_k s_k^2 a_k a_k^T (pull.cuh)
//   adapt                    n = N or D                          rows: identity
//
// For each block column of 64: `cholesky_diagonal` factors its diagonal block and inverts it (one block, in shared
// memory), `cholesky_panel` multiplies the rows below by that inverse (a warp STRIP rows) and keeps them in panels as
// well, `cholesky_update` subtracts their products from the columns to the right (a block a 64 x 64 tile). Rows of the
// identity are zero up to their own block and are left out until then: those of the samples to be held out, M of N, lie
// last and cost M^3 / 6.
// Floor: n^3 / 6 + (rows - n - M) n^2 / 2 + M^3 / 6 float64 operations, 3 n / 64 launches.

#include "factor.cuh"
#include "tile.cuh"

KERNEL(assemble, SystemParams) {
  if (p.moment) {
    for (int i = (block() * WARPS + warp()) * ROWS; i < p.n; i += blocks() * WARPS * ROWS) {
      const auto row = [&](int r) { return i + r < p.n ? i + r : p.n - 1; };
      // n_k s_k^2 a_k, whose outer product with a_k = sums_k / n_k - m falls into a part in sums_k and one in m.
      const auto offset = [&](int r, int k) {
        const double s = p.pulls[k];
        return s * s * (p.sums[(size_t)k * p.n + row(r)] - p.counts[k] * p.centre[row(r)]);
      };
      double offsets[ROWS] = {};
      for (int r = 0; r < ROWS; ++r)
        for (int k = 0; k < p.K; ++k) offsets[r] += offset(r, k);
      for (int chunk = 0; chunk < chunks<double, ROWS, WARP>(i + ROWS < p.n ? i + ROWS : p.n); ++chunk)
        combine<double, ROWS, WARP>(
            chunk, p.n, p.sums, p.n, 0, p.K,
            [&](int r, int k) { return (p.sums[(size_t)k * p.n + row(r)] - offset(r, k)) / p.counts[k]; },
            [&](int r, int j, double value) {
              if (j > row(r) || i + r >= p.n) return;
              const size_t at = (size_t)row(r) * p.n + j;
              p.system[at] = p.moment[at] - value - offsets[r] * p.centre[j] + (row(r) == j ? p.ridge : 0);
            });
    }
  } else {
    for (int i = block() * LANES + lane(); i < p.n; i += blocks() * LANES) p.system[(size_t)i * p.n + i] += p.ridge;
  }
  for (int i = p.n + block() * WARPS + warp(); i < p.rows; i += blocks() * WARPS) {
    double* row = p.system + (size_t)i * p.n;
    if (i >= p.identity) {
      const int own = i - (p.rows - p.n);
      for (int j = (own - (i - p.identity)) / TILE * TILE + warp_lane(); j < p.n; j += WARP) row[j] = j == own;
    } else if (p.right) {
      for (int j = warp_lane(); j < p.n; j += WARP) row[j] = p.right[(size_t)(i - p.n) * p.n + j];
    }
  }
}

KERNEL(cholesky_diagonal, SystemParams) {
  double* L = (double*)shared_memory();
  double* line = L + TILE * TILE;
  const int w = p.n - p.start < TILE ? p.n - p.start : TILE;
  double* H = p.system + (size_t)p.start * p.n + p.start;
  for (int i = warp(); i < w; i += WARPS)
    for (int j = warp_lane(); j < w; j += WARP) L[i * w + j] = j <= i ? H[(size_t)i * p.n + j] : 0;
  sync();
  factor(L, w, line);
  for (int i = warp(); i < w; i += WARPS)
    for (int j = warp_lane(); j <= i; j += WARP) H[(size_t)i * p.n + j] = L[i * w + j];
  sync();
  invert(L, w, line);
  for (int i = warp(); i < w; i += WARPS)  // transposed: read along its rows
    for (int j = warp_lane(); j < w; j += WARP) p.inverse[i * w + j] = L[j * w + i];
}

DEVICE int tiles(int rows) { return (rows + TILE - 1) / TILE; }

// The rows below a block column by tiles: `height` rows from `row` on, which are zero up to column `begin`. The rows of
// the identity begin a tile, or others would make theirs be worked on from the first block column on.
struct Below {
  int row, height, begin;
};

DEVICE Below below(const SystemParams& p, int first, int tile) {
  const int others = tiles(p.identity - first);
  const bool zero = tile >= others;
  const int row = zero ? p.identity + (tile - others) * TILE : first + tile * TILE;
  const int left = (zero ? p.rows : p.identity) - row;
  return {row, left < TILE ? left : TILE, zero ? (row - (p.rows - p.n)) / TILE * TILE : 0};
}

DEVICE int tiles_below(const SystemParams& p, int first) {
  return tiles(p.identity - first) + tiles(p.rows - p.identity);
}

KERNEL(cholesky_panel, SystemParams) {
  constexpr int ROWS = STRIP<double>;
  SHARED(double, old, WARPS* ROWS* TILE);
  const int w = p.n - p.start < TILE ? p.n - p.start : TILE, first = p.start + w;
  double* mine = old + warp() * ROWS * TILE;
  const int strips = tiles_below(p, first) * (TILE / ROWS);
  for (int base = block() * WARPS; base < strips; base += blocks() * WARPS) {
    const int strip = base + warp(), tile = strip * ROWS / TILE, from = strip * ROWS % TILE;
    const Below at = below(p, first, tile);
    const int count = at.height - from < ROWS ? at.height - from : ROWS;
    const bool active = strip < strips && count > 0 && at.begin <= p.start;
    double* row = p.system + (size_t)(at.row + from) * p.n + p.start;
    if (active)
      for (int r = 0; r < ROWS; ++r)
        for (int j = warp_lane(); j < w; j += WARP) mine[r * TILE + j] = r < count ? row[(size_t)r * p.n + j] : 0;
    sync();
    if (active) {
      for (int chunk = 0; chunk < chunks<double, ROWS, WARP>(w); ++chunk) {
        const int end = (chunk + 1) * CHUNK<double, ROWS, WARP>;  // the inverse is triangular
        combine<double, ROWS, WARP>(
            chunk, w, p.inverse, w, 0, end < w ? end : w, [&](int r, int k) { return mine[r * TILE + k]; },
            [&](int r, int j, double value) {
              if (r < count) row[(size_t)r * p.n + j] = value;
            });
      }
      if (first < p.n) turn(row, p.n, count, w, p.panels + (size_t)tile * TILE * TILE + from);
    }
    sync();
  }
}

KERNEL(cholesky_update, SystemParams) {
  SHARED(double, left, DEPTH* TILE);
  SHARED(double, right, DEPTH* TILE);
  const int first = p.start + TILE;  // a block column with others to its right is whole
  const int across = tiles(p.n - first), down = tiles_below(p, first);
  for (int task = block(); task < across * down; task += blocks()) {
    const Below at = below(p, first, task / across);
    const int column = first + task % across * TILE, width = p.n - column;
    if (column > at.row || at.begin > p.start) continue;  // above the diagonal, or still zero
    const double* above = p.panels + (size_t)(task / across) * TILE * TILE;
    const double* beside = p.panels + (size_t)(task % across) * TILE * TILE;
    const Place to = {p.system + (size_t)at.row * p.n + column, (size_t)p.n, at.height, width, at.row - column};
    Tile<double> tile;
    for (int from = 0; from < TILE; from += DEPTH) {
      sync();  // those who still read the last panels
      const double* A = staged(left, above + from * TILE, TILE, DEPTH, at.height);
      const double* B = staged(right, beside + from * TILE, TILE, DEPTH, width);
      sync();
      tile.add(A, B, DEPTH, to, -1, false, from == 0, from + DEPTH == TILE);
    }
  }
}
