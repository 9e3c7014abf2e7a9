// 3 x 3 tensors as their nine numbers, (9, width) of an atom; see networks/encoders/tensornet.py. For the CPU, compiled once for each
// instruction set, `Lanes` are 16 channels; on the GPU it is one. The including file has `INLINE`, `Lanes` and `load`.

// Which of the three parts, a multiple of one, antisymmetric, symmetric traceless, a number belongs to.
INLINE int64_t part_of(int64_t number) { return number < 1 ? 0 : number < 4 ? 1 : 2; }

// Of one direction u, or of none: the number 1, u as an axial vector, and u u - |u|^2 / 3.
INLINE void direction_tensor(const float* u, float (&shape)[9]) {
  const float third = (u[0] * u[0] + u[1] * u[1] + u[2] * u[2]) / 3.f;
  const float values[9] = {1.f,         u[0],        u[1],                u[2],       u[0] * u[0] - third,
                           u[0] * u[1], u[0] * u[2], u[1] * u[1] - third, u[1] * u[2]};
  for (int m = 0; m < 9; ++m) shape[m] = values[m];
}

struct Matrix {
  Lanes at[3][3];
};

INLINE Matrix unpacked(const float* parts, int64_t width) {
  Lanes p[9];
  for (int m = 0; m < 9; ++m) p[m] = load(parts + m * width);
  return {{{p[0] + p[4], p[5] - p[3], p[6] + p[2]},
           {p[5] + p[3], p[0] + p[7], p[8] - p[1]},
           {p[6] - p[2], p[8] + p[1], p[0] - p[4] - p[7]}}};
}

INLINE void pack(const Matrix& t, Lanes (&p)[9]) {
  p[0] = (t.at[0][0] + t.at[1][1] + t.at[2][2]) * (1.f / 3.f);
  p[1] = (t.at[2][1] - t.at[1][2]) * 0.5f;
  p[2] = (t.at[0][2] - t.at[2][0]) * 0.5f;
  p[3] = (t.at[1][0] - t.at[0][1]) * 0.5f;
  p[4] = t.at[0][0] - p[0];
  p[5] = (t.at[0][1] + t.at[1][0]) * 0.5f;
  p[6] = (t.at[0][2] + t.at[2][0]) * 0.5f;
  p[7] = t.at[1][1] - p[0];
  p[8] = (t.at[1][2] + t.at[2][1]) * 0.5f;
}

// What a tensor is divided by: one and the square of its Frobenius norm.
INLINE Lanes one_and_norm(const Lanes (&p)[9]) {
  const Lanes last = p[4] + p[7];
  return 1.f + 3.f * p[0] * p[0] + p[4] * p[4] + p[7] * p[7] + last * last +
         2.f * (p[1] * p[1] + p[2] * p[2] + p[3] * p[3] + p[5] * p[5] + p[6] * p[6] + p[8] * p[8]);
}

INLINE void divide(Lanes (&p)[9]) {
  const Lanes factor = 1.f / one_and_norm(p);
  for (int m = 0; m < 9; ++m) p[m] = p[m] * factor;
}

// X / (|X|^2 + 1).
INLINE void scaled_tensor(const float* x, int64_t width, Lanes (&p)[9]) {
  for (int m = 0; m < 9; ++m) p[m] = load(x + m * width);
  divide(p);
}

// P / (|P|^2 + 1) with the matrix products P = A B + B A.
INLINE void tensor_product(const float* first, const float* second, int64_t width, Lanes (&p)[9]) {
  const Matrix a = unpacked(first, width), b = unpacked(second, width);
  Matrix both;
  for (int row = 0; row < 3; ++row) {
    for (int column = 0; column < 3; ++column) {
      Lanes total = a.at[row][0] * b.at[0][column] + b.at[row][0] * a.at[0][column];
      for (int k = 1; k < 3; ++k) total += a.at[row][k] * b.at[k][column] + b.at[row][k] * a.at[k][column];
      both.at[row][column] = total;
    }
  }
  pack(both, p);
  divide(p);
}

// X + C + C C, a matrix product.
INLINE void tensor_square(const float* x, const float* change, int64_t width, Lanes (&p)[9]) {
  const Matrix a = unpacked(change, width);
  Matrix square;
  for (int row = 0; row < 3; ++row) {
    for (int column = 0; column < 3; ++column) {
      square.at[row][column] =
          a.at[row][0] * a.at[0][column] + a.at[row][1] * a.at[1][column] + a.at[row][2] * a.at[2][column];
    }
  }
  pack(square, p);
  for (int m = 0; m < 9; ++m) p[m] = load(x + m * width) + load(change + m * width) + p[m];
}

template <TensorFormula kFormula>
INLINE void tensor_formula(const float* first, const float* second, int64_t width, Lanes (&p)[9]) {
  if (kFormula == TensorFormula::kScaled) scaled_tensor(first, width, p);
  if (kFormula == TensorFormula::kProduct) tensor_product(first, second, width, p);
  if (kFormula == TensorFormula::kSquare) tensor_square(first, second, width, p);
}
