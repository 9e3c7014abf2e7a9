// Layer norms of rows, and their gradients; compiled once for each instruction set.

struct Moments {
  float mean, scale;
};

INLINE Moments moments(const float* row, int64_t width) {
  Lanes total = fill(0.f), squares = fill(0.f);
  for (int64_t c = 0; c < width; c += 16) total += load(row + c);
  const float mean = sum(total) / static_cast<float>(width);
  for (int64_t c = 0; c < width; c += 16) {
    const Lanes away = load(row + c) - mean;
    squares += away * away;
  }
  return {mean, 1.f / std::sqrt(sum(squares) / static_cast<float>(width) + 1e-5f)};
}

static void normalize_loop(const float* rows, int64_t begin, int64_t end, int64_t width, const float* norm, float* to) {
  for (int64_t i = begin; i < end; ++i) {
    const float* row = rows + width * i;
    const Moments m = moments(row, width);
    for (int64_t c = 0; c < width; c += 16) {
      store(to + width * i + c, (load(row + c) - m.mean) * m.scale * load(norm + c) + load(norm + width + c));
    }
  }
}

static void normalize_back_loop(const float* rows, int64_t begin, int64_t end, int64_t width, const float* norm,
                                const float* gradient, float* to) {
  for (int64_t i = begin; i < end; ++i) {
    const float *row = rows + width * i, *from = gradient + width * i;
    const Moments m = moments(row, width);
    Lanes plain = fill(0.f), along = fill(0.f);
    for (int64_t c = 0; c < width; c += 16) {
      const Lanes g = load(from + c) * load(norm + c);
      plain += g;
      along += g * (load(row + c) - m.mean) * m.scale;
    }
    const float mean = sum(plain) / static_cast<float>(width), slope = sum(along) / static_cast<float>(width);
    for (int64_t c = 0; c < width; c += 16) {
      const Lanes g = load(from + c) * load(norm + c), x = (load(row + c) - m.mean) * m.scale;
      add_to(to + width * i + c, (g - mean - x * slope) * m.scale);
    }
  }
}
