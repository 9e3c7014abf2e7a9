// The loops of vector_network.h; included once for each instruction set, inside a namespace of its own.

#include "vector_gamd/cpu/pair_loops.inl"

static void messages(const PairEnds& pairs, int64_t begin, int64_t end, const RowMessages& in, float* scalars,
                     float* vectors) {
  const auto loop = in.probe != nullptr ? messages_loop<true, PairEnds> : messages_loop<false, PairEnds>;
  loop(pairs, begin, end, in, scalars, vectors);
}

// The loop with the gradients that are asked for: of the weights in training, of the geometry for forces.
template <bool kVectors>
static void message_gradients_of(const PairEnds& pairs, int64_t begin, int64_t end, const RowMessages& in,
                                 const RowMessageGradients& out) {
  const bool geometry = out.pair_vectors != nullptr, weights = out.table != nullptr;
  const auto loop = geometry ? (weights ? message_gradients_loop<kVectors, true, true, PairEnds>
                                        : message_gradients_loop<kVectors, true, false, PairEnds>)
                             : (weights ? message_gradients_loop<kVectors, false, true, PairEnds>
                                        : message_gradients_loop<kVectors, false, false, PairEnds>);
  loop(pairs, begin, end, in, out);
}

static void message_gradients(const PairEnds& pairs, int64_t begin, int64_t end, const RowMessages& in,
                              const RowMessageGradients& out) {
  (in.probe != nullptr ? message_gradients_of<true> : message_gradients_of<false>)(pairs, begin, end, in, out);
}

static void strength_gradients(const PairEnds& pairs, int64_t begin, int64_t end, const RowStrengths& in,
                               const RowStrengthGradients& out) {
  const bool geometry = out.pair_vectors != nullptr, weights = out.table != nullptr;
  const auto loop = geometry ? (weights ? strength_gradients_loop<true, true, false, PairEnds>
                                        : strength_gradients_loop<true, false, false, PairEnds>)
                             : (weights ? strength_gradients_loop<false, true, false, PairEnds>
                                        : strength_gradients_loop<false, false, false, PairEnds>);
  loop(pairs, begin, end, in, out);
}

static const VectorNetworkKernels kernels{&messages, &message_gradients, &strengths_loop<PairEnds>, &strength_gradients};
