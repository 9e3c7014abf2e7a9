// The loops of particle_mesh.h; included once for each instruction set, inside a namespace of its own.

using Four = float __attribute__((vector_size(16)));  // x, y, z of one atom
using FourDoubles = double __attribute__((vector_size(32)));
using FourIntegers = int32_t __attribute__((vector_size(16)));
using Eight = float __attribute__((vector_size(32)));  // points of one row

INLINE Eight load_row(const float* p) {
  Eight v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}

INLINE void add_to_row(float* p, const Eight& v) {
  const Eight sum = load_row(p) + v;
  __builtin_memcpy(p, &sum, sizeof(sum));
}

INLINE float sum_row(const Eight& v) { return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7])); }

// ---- where atoms are ------------------------------------------------------------------------------------------------

// The last point before an atom and how far it is beyond, in units of the grid.
struct Place {
  int32_t first[3];
  Four beyond;
};

// A mesh in registers.
struct Frame {
  FourDoubles rows[3], sizes;  // of the inverse box; of the grid
  FourIntegers limits;
};

INLINE Frame frame_of(const Mesh& mesh) {
  Frame frame;
  for (int d = 0; d < 3; ++d) {
    const double* row = mesh.inverse[d];
    frame.rows[d] = FourDoubles{row[0], row[1], row[2], 0};
    frame.sizes[d] = static_cast<double>(mesh.size[d]);
  }
  frame.sizes[3] = 1;
  frame.limits = __builtin_convertvector(frame.sizes, FourIntegers);
  return frame;
}

INLINE Place place_of(const Frame& frame, const float* r) {
  const FourDoubles zero{}, one = zero + 1.0, magic = zero + 6755399441055744.0;  // 1.5 * 2^52
  FourDoubles scaled = static_cast<double>(r[0]) * frame.rows[0] + static_cast<double>(r[1]) * frame.rows[1] +
                       static_cast<double>(r[2]) * frame.rows[2];
  const FourDoubles shifted = scaled + magic;  // rounded to a whole number
  scaled -= shifted - magic;
  scaled = (scaled < zero ? scaled + one : scaled) * frame.sizes;
  FourIntegers first = __builtin_convertvector(scaled, FourIntegers);
  Place place;
  place.beyond = __builtin_convertvector(scaled - __builtin_convertvector(first, FourDoubles), Four);
  // A fraction just below zero can round up to one: that is the first point again. A position that is not a number
  // stays one in its weights.
  const FourIntegers none{};
  first = first < none ? none : first;
  first = first < frame.limits ? first : none;
  for (int d = 0; d < 3; ++d) place.first[d] = first[d];
  return place;
}

static void find_blocks(const Mesh& mesh, const MeshCharges& charges, int64_t begin, int64_t end, int32_t* blocks) {
  const int64_t per_plane = (mesh.size[1] + kRowsPerBlock - 1) / kRowsPerBlock;
  const Frame frame = frame_of(mesh);
  for (int64_t n = begin; n < end; ++n) {
    const Place place = place_of(frame, charges.positions + 3 * n);
    blocks[n] = static_cast<int32_t>(place.first[0] * per_plane + place.first[1] / kRowsPerBlock);
  }
}

// ---- splines --------------------------------------------------------------------------------------------------------

// M_n(t + k) and its derivative, eq. (4.1) and (4.2), in the order of the points that they belong to: k = n - 1 .. 0.
template <int kOrder>
INLINE void spline_columns(const Four& t, Four* weights, Four* slopes) {
  constexpr int last = kOrder - 1;
  weights[last] = t;
  weights[last - 1] = 1.f - t;
#pragma GCC unroll 8
  for (int n = 3; n <= kOrder; ++n) {
    if (n == kOrder) {
      slopes[last] = weights[last];
#pragma GCC unroll 8
      for (int k = 1; k < n - 1; ++k) slopes[last - k] = weights[last - k] - weights[last - k + 1];
      slopes[last - (n - 1)] = -weights[last - (n - 2)];
    }
    const float scale = 1.f / static_cast<float>(n - 1);
    weights[last - (n - 1)] = (1.f - t) * weights[last - (n - 2)] * scale;
#pragma GCC unroll 8
    for (int k = n - 2; k > 0; --k) {
      const float before = static_cast<float>(k), after = static_cast<float>(n - k);
      weights[last - k] = ((t + before) * weights[last - k] + (after - t) * weights[last - k + 1]) * scale;
    }
    weights[last] = t * weights[last] * scale;
  }
}

// The components along the last axis, padded with zeros.
template <int kOrder>
INLINE Eight along_row(const Four* columns) {
  Eight row{};
#pragma GCC unroll 8
  for (int k = 0; k < kOrder; ++k) row[k] = columns[k][2];
  return row;
}

template <int kOrder>
static void find_splines_of(const Mesh& mesh, const MeshCharges& charges, const int32_t* atoms, int64_t begin,
                            int64_t end, SplinedCharge* splines) {
  const Frame frame = frame_of(mesh);
  for (int64_t n = begin; n < end; ++n) {
    const Place place = place_of(frame, charges.positions + 3 * atoms[n]);
    const float charge = charges.values[atoms[n]];
    Four weights[kOrder], slopes[kOrder];
    spline_columns<kOrder>(place.beyond, weights, slopes);
    SplinedCharge& spline = splines[n];
    const Eight z = along_row<kOrder>(weights);
    __builtin_memcpy(spline.z, &z, sizeof(z));
#pragma GCC unroll 8
    for (int k = 0; k < kOrder; ++k) {
      spline.x[k] = charge * weights[k][0];
      spline.y[k] = weights[k][1];
    }
    spline.begin = place.first[1] * mesh.stride() + place.first[2];
  }
}

// ---- between atoms and planes ---------------------------------------------------------------------------------------

template <int kOrder>
static void spread_of(const Mesh& mesh, const SplinedCharge* splines, int64_t count, int64_t column, float* plane) {
  const int64_t stride = mesh.stride();
  for (int64_t n = 0; n < count; ++n) {
    const SplinedCharge& spline = splines[n];
    const Eight values = spline.x[column] * load_row(spline.z);
    float* row = plane + spline.begin;
#pragma GCC unroll 8
    for (int k = 0; k < kOrder; ++k) add_to_row(row + k * stride, spline.y[k] * values);
  }
}

template <int kOrder>
static double gather_of(const Mesh& mesh, const MeshCharges& charges, const int32_t* atoms, int64_t begin,
                        int64_t end, const float* potential, float* forces) {
  const int64_t stride = mesh.stride(), points = mesh.padded_points();
  const Frame frame = frame_of(mesh);
  double energy = 0;
  for (int64_t n = begin; n < end; ++n) {
    const int64_t atom = atoms[n];
    const Place place = place_of(frame, charges.positions + 3 * atom);
    Four weights[kOrder], slopes[kOrder];
    spline_columns<kOrder>(place.beyond, weights, slopes);
    const int64_t first = place.first[1] * stride + place.first[2];
    int64_t plane = place.first[0] - (kOrder - 1);
    while (plane < 0) plane += mesh.size[0];
    Eight value{}, slope_x{}, slope_y{};
    for (int kx = 0; kx < kOrder; ++kx) {
      const float* row = potential + plane * points + first;
      plane = plane + 1 < mesh.size[0] ? plane + 1 : 0;
      Eight along{}, across{};
#pragma GCC unroll 8
      for (int ky = 0; ky < kOrder; ++ky) {
        const Eight here = load_row(row + ky * stride);
        along += weights[ky][1] * here;
        across += slopes[ky][1] * here;
      }
      value += weights[kx][0] * along;
      slope_x += slopes[kx][0] * along;
      slope_y += weights[kx][0] * across;
    }
    const Eight z = along_row<kOrder>(weights);
    const double charge = charges.values[atom];
    const double gradient[3] = {sum_row(slope_x * z) * static_cast<double>(mesh.size[0]),
                                sum_row(slope_y * z) * static_cast<double>(mesh.size[1]),
                                sum_row(value * along_row<kOrder>(slopes)) * static_cast<double>(mesh.size[2])};
    energy += 0.5 * charge * sum_row(value * z);
    for (int d = 0; d < 3; ++d) {
      const double* inverse = mesh.inverse[d];
      const double slope = gradient[0] * inverse[0] + gradient[1] * inverse[1] + gradient[2] * inverse[2];
      forces[3 * atom + d] = static_cast<float>(-charge * slope);
    }
  }
  return energy;
}

static void find_splines(const Mesh& mesh, const MeshCharges& charges, const int32_t* atoms, int64_t begin,
                         int64_t end, SplinedCharge* splines) {
  if (mesh.order == 4) return find_splines_of<4>(mesh, charges, atoms, begin, end, splines);
  if (mesh.order == 6) return find_splines_of<6>(mesh, charges, atoms, begin, end, splines);
  return find_splines_of<8>(mesh, charges, atoms, begin, end, splines);
}

static void spread(const Mesh& mesh, const SplinedCharge* splines, int64_t count, int64_t column, float* plane) {
  if (mesh.order == 4) return spread_of<4>(mesh, splines, count, column, plane);
  if (mesh.order == 6) return spread_of<6>(mesh, splines, count, column, plane);
  return spread_of<8>(mesh, splines, count, column, plane);
}

static double gather(const Mesh& mesh, const MeshCharges& charges, const int32_t* atoms, int64_t begin, int64_t end,
                     const float* potential, float* forces) {
  if (mesh.order == 4) return gather_of<4>(mesh, charges, atoms, begin, end, potential, forces);
  if (mesh.order == 6) return gather_of<6>(mesh, charges, atoms, begin, end, potential, forces);
  return gather_of<8>(mesh, charges, atoms, begin, end, potential, forces);
}

// ---- the influence function -----------------------------------------------------------------------------------------

static void find_influence(const InfluenceRow& row, const float* factors, int64_t count, float* values) {
  constexpr float kFirst[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  Lanes number = load(kFirst);
  const Lanes lowest = fill(-87.f);
  for (int64_t m = 0; m < count; m += 16, number += 16.f) {
    const Lanes squared = row.constant + number * (row.linear + number * row.square);
    const Lanes power = larger(row.exponent * squared, lowest);
    store(values + m, row.scale * load(factors + m) * exponential(power) / squared);
  }
}

static const ParticleMeshKernels kernels{find_blocks, find_splines, spread, gather, find_influence};
