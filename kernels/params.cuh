// The one struct that each kernel takes, declared here once. fieldshot/ops/sources.py reads this file, so a struct is
// nothing but lines `type name, name;` of pointers, int and double; a field's comment gives its shape.
//
// N samples, D embedding dimension, K classes, M queries or held-out samples. Matrices are row by row. Samples come
// class by class: class k has rows starts[k] to starts[k + 1], and index[i] is the class of row i.
#pragma once

struct TransformParams {
  const float* Z;  // (N, D)
  float* U;        // (N, D)
  int N, D;
};

struct ClassSumsParams {
  const float* U;     // (N, D)
  const int* starts;  // (K + 1)
  double* sums;       // (K, D)
  int D, K;
};

// Scratch: what a kernel leaves for its own later steps.
struct FitParams {
  const float* U;       // (N, D), N samples of all classes
  const int* index;     // (N)
  const int* starts;    // (K + 1)
  float* weights;       // (K, D)
  float* bias;          // (K)
  float* prototypes;    // (K, D), unit length
  double* temperature;  // (1)
  double* known;        // (N), nan where alone in its class
  double* unknown;      // (N)
  double* counts;       // scratch (K)
  double* pulls;        // scratch (K), pull.cuh
  double* cross;        // scratch (N, K)
  double* right;        // scratch (N, K)
  double* half;         // scratch (N, K)
  double* projected;    // scratch (N, K)
  double* means;        // scratch (K, K)
  double* between;      // scratch (K, K)
  double* offsets;      // scratch (K, K)
  double* squares;      // scratch (N)
  double* leverage;     // scratch (N)
  double* sample_centre;  // scratch (N)
  double* class_centre;   // scratch (K)
  float* coefficients;  // scratch (K, N)
  float* held_out;      // (N, K), 0 where alone in its class
  double mean_prior, covariance_prior, pull, spread, spread_weight, temperature_prior, temperature_weight;
  int N, D, K;
};

struct HeldOutParams {
  const int* index;         // (M)
  const double* counts;     // (K), all samples, held out or not
  const double* pulls;      // (K), pull.cuh
  const double* cross;      // (M, K), samples with class means
  const double* squares;    // (M), samples with themselves
  const double* means;      // (K, K), class means with one another
  const double* projected;  // (M, K), R H^-1 A^T of pulled residuals
  const double* leverage;   // (M), diagonal of R H^-1 R^T of pulled residuals
  const double* between;    // (K, K), A H^-1 A^T
  float* held_out;          // (M, K)
  double* known;            // (M)
  double* unknown;          // (M)
  double scale, mean_prior;
  int M, K;
};

struct TemperatureParams {
  const float* held_out;  // (M, K)
  const int* index;       // (M)
  const int* starts;      // (K + 1), of the held-out samples
  const double* counts;   // (K), of all samples
  const double* means;    // (K, K), class means with one another
  const double* between;  // (K, K), A H^-1 A^T
  double* temperature;    // (1)
  double prior, prior_weight, ridge;
  int M, K;
};

struct MomentParams {
  const float* U;        // (N, D), or in panels (D / 64 rounded up, N, 64)
  const double* before;  // (D, D) or null
  double* partial;       // scratch (slices, D, D), or (rows, D)
  double* moment;        // (D, D)
  int N, D, rows, slices, stride, apart;  // stride: from sample to sample; apart: from 64 dimensions to the next
};

struct ProductParams {
  const void* A;  // (n, depth)
  const void* B;  // (m, depth)
  double* C;      // (n, m)
  int n, m, depth;
};

struct CentreParams {
  const float* U;        // (M, D), samples at hand
  const int* index;      // (M)
  const double* sums;    // (K, D)
  const double* counts;  // (K)
  double* centre;        // (D)
  double* pulls;         // (K), pull.cuh
  float* means;          // (K, D)
  float* residuals;      // (M, D), pulled
  float* offsets;        // (K, D), in one piece with the residuals
  float* panels;         // ((M + K) / 64 rounded up, D, 64), residuals and offsets in panels (tile.cuh), or null
  float* prototypes;     // (K, D)
  double* squares;       // (M)
  double pull;
  int M, D, K;
};

struct SystemParams {
  const double* moment;  // (n, n), or null where H without its ridge is in `system` already
  const double* sums;    // (K, n), with `moment`
  const double* counts;  // (K), with `moment`
  const double* centre;  // (n), with `moment`
  const double* pulls;   // (K), with `moment`
  const float* right;    // (identity - n, n), right-hand rows, or null where they are in `system` already
  double* inverse;       // scratch (64, 64)
  double* panels;        // scratch (tiles, 64, 64): the rows below the block column, in panels (tile.cuh)
  double* system;        // (rows, n)
  double ridge;
  int n, rows, identity, K, start;  // identity: the first row of its last ones; start: the block column at work
};

struct BackParams {
  const double* right;   // (K, n), right-hand rows of the factored system
  const double* system;  // (rows, n), factored
  double* solved;        // (K, n)
  int n, K;
};

struct GatherParams {
  const double* rows;    // (M, n) of the factored system, of the samples or the identity
  const double* solved;  // (K, n), dual case only
  double* projected;     // (M, K), dual case only
  double* leverage;      // (M)
  double* between;       // (K, K); holds A A^T in the dual case before
  const double* half;    // (K, K), products of the forward rows; dual case only
  double ridge;
  int n, M, K, dual;
};

struct WeightsParams {
  const float* rows;      // (N + K, D), pulled residuals and offsets, dual case only
  const double* solved;   // P^T (K, N) in the dual case, else A H^-1 (K, D)
  float* coefficients;    // scratch (K, N + K), dual case only
  const double* counts;   // (K)
  const double* between;  // (K, K)
  const double* centre;   // (D)
  float* weights;         // (K, D)
  float* bias;            // (K)
  double scale, ridge, mean_prior;
  int N, D, K, dual;
};

struct PredictParams {
  const float* Z;           // (N, D)
  const float* weights;     // (K, D)
  const float* bias;        // (K)
  const float* prototypes;  // (K, D)
  double* logits;           // (N, K)
  double* probabilities;    // (N, K)
  double* cosines;          // (N, K), or null
  int* best;                // (N, top)
  double scale;
  int N, D, K, top;
};

struct AdaptParams {
  const float* queries;    // (M, D), unlabelled
  const float* residuals;  // (N, D) in the dual case, else null
  const double* inverse;   // (N, N) in the dual case, else (D, D): H^-1
  const double* counts;    // (K)
  const double* sums;      // (K, D)
  float* weights;          // (K, D)
  float* bias;             // (K)
  double* share;           // (M, K), the start; overwritten
  double* soft_counts;     // scratch (K)
  float* means;            // scratch (K, D)
  float* offsets;          // scratch (K, D)
  double* centre;          // scratch (D)
  double* products;        // scratch (K, N), dual case only
  double* solved;          // scratch (K, N), dual case only
  float* directions;       // scratch (K, D)
  double temperature, weight, scale, ridge, mean_prior;
  int M, N, D, K, steps;
};

// One picture of a batch. A resize is two passes: `first` along lines, `second` over what that leaves of them. Lines
// are rows, or columns where the picture is turned. A table has the first pixel of each output pixel, then the weights.
struct PreprocessPicture {
  const uint8_t* pixels;  // red, green, blue
  const int* first;       // (outputs along a line, 1 + first_taps)
  const int* second;      // (outputs over lines, 1 + second_taps)
  int line_bytes, pixel_bytes;  // from one to the next
  int lines, length;            // that take part; pixels of a line
  int first_taps, second_taps, turned;
};

struct PreprocessParams {
  const PreprocessPicture* pictures;  // (N)
  const float* affine;                // (2, 3), scale and shift of a pixel's 8 bits for each channel of the output
  float* out;                         // (N, 3, height, width)
  int N, height, width, reversed;     // reversed: blue, green, red
};
