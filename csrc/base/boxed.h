// Turns a plain function into an operator of PyTorch. Its schema is a constant; the file of the function ends with
//
//   OPENMM_GNN_CPU_OPERATORS(library) { implement<kPairTypes, pair_types_cpu>(library); }
//
// which gives PyTorch the operator and its function for the CPU. The one for CUDA follows in its own library, loaded after
// the CPU's, with OPENMM_GNN_CUDA_OPERATORS; an operator of CUDA alone is made known in a file of the CPU with
// `define<kPairForceSums>(library)`. The compiler compares schema and function, type for type.
//
// An argument is a Tensor, double (float of the schema), int64_t (int) or bool, or a struct of several such arguments that
// follow each other: it names their types as `using Fields = std::tuple<Tensor, double, ...>`, in the order of its members.
// A result is void, a Tensor, or a std::tuple or std::array of them.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor_struct.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

// The emulator of the tests registers the operators of CUDA as if they were the CPU's, under a name of its own.
#ifndef OPENMM_GNN_LIBRARY
#define OPENMM_GNN_LIBRARY openmm_gnn
#define OPENMM_GNN_CUDA_OPERATORS(library) \
  OPENMM_GNN_IMPLEMENTATIONS(CUDA, OPENMM_GNN_JOIN(register_operators_, __COUNTER__), library)
#endif
#define OPENMM_GNN_CPU_OPERATORS(library) \
  OPENMM_GNN_OPERATORS(OPENMM_GNN_JOIN(register_operators_, __COUNTER__), library)

#define OPENMM_GNN_JOIN(first, second) OPENMM_GNN_JOINED(first, second)
#define OPENMM_GNN_JOINED(first, second) first##second
#define OPENMM_GNN_OPERATORS(function, library)                                                                     \
  template <class Library>                                                                                          \
  static void function(const Library&);                                                                             \
  STABLE_TORCH_LIBRARY_FRAGMENT(OPENMM_GNN_LIBRARY, fragment) { function(openmm_gnn::definitions_in(fragment)); }  \
  OPENMM_GNN_IMPLEMENTATIONS(CPU, function, library)
#define OPENMM_GNN_IMPLEMENTATIONS(key, function, library)                   \
  template <class Library>                                                   \
  static void function(const Library&);                                      \
  STABLE_TORCH_LIBRARY_IMPL(OPENMM_GNN_LIBRARY, key, implementations) {      \
    function(openmm_gnn::implementations_in(implementations));               \
  }                                                                          \
  template <class Library>                                                   \
  static void function(const Library& library)

namespace openmm_gnn {

using torch::stable::Tensor;

// ---- schemas --------------------------------------------------------------------------------------------------------

// Reads "name(Tensor(a!) first, float second) -> (Tensor first, Tensor second)" at compile time.
struct SchemaReader {
  const char* at;
  bool same = true;
  bool first = true;  // of a list

  constexpr void text(const char* expected) {
    while (*at == ' ') ++at;
    for (; same && *expected != 0; ++expected) {
      same = *at == *expected;
      if (same) ++at;
    }
  }
  // A type, whatever is said about its memory, and the name after it.
  constexpr void type(const char* expected) {
    if (!first) text(",");
    first = false;
    text(expected);
    if (!same) return;
    if (*at == '(') {
      while (*at != 0 && *at++ != ')') {
      }
    }
    same = *at == ' ' || *at == ',' || *at == ')' || *at == 0;
    while (*at != 0 && *at != ',' && *at != ')') ++at;
  }
};

// ---- arguments ------------------------------------------------------------------------------------------------------

// How arguments of type T leave the stack and what a schema calls them.
template <typename T, typename = void>
struct Argument {
  static_assert(!std::is_same_v<T, T>,
                "an argument of this type has no form in a schema: take Tensor, double, int64_t, bool or a struct with Fields");
};

template <>
struct Argument<Tensor> {
  static constexpr void read(SchemaReader& schema) { schema.type("Tensor"); }
  static Tensor pop(StableIValue*& slot) {
    AtenTensorHandle handle;
    std::memcpy(&handle, slot++, sizeof(handle));
    return Tensor(handle);
  }
};

template <typename T>
struct NumberArgument {
  static T pop(StableIValue*& slot) {
    static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "written for little-endian machines");
    T value;
    std::memcpy(&value, slot++, sizeof(value));
    return value;
  }
};

template <>
struct Argument<double> : NumberArgument<double> {
  static constexpr void read(SchemaReader& schema) { schema.type("float"); }
};

template <>
struct Argument<int64_t> : NumberArgument<int64_t> {
  static constexpr void read(SchemaReader& schema) { schema.type("int"); }
};

template <>
struct Argument<bool> {
  static constexpr void read(SchemaReader& schema) { schema.type("bool"); }
  static bool pop(StableIValue*& slot) { return (*slot++ & 0xff) != 0; }
};

template <typename... Ts>
struct Argument<std::tuple<Ts...>> {
  static constexpr void read(SchemaReader& schema) { (Argument<Ts>::read(schema), ...); }
  template <typename T>
  static T pop_struct(StableIValue*& slot) {
    return T{Argument<Ts>::pop(slot)...};  // braces: in order
  }
};

template <typename T>
struct Argument<T, std::void_t<typename T::Fields>> {
  static constexpr void read(SchemaReader& schema) { Argument<typename T::Fields>::read(schema); }
  static T pop(StableIValue*& slot) { return Argument<typename T::Fields>::template pop_struct<T>(slot); }
};

// ---- results --------------------------------------------------------------------------------------------------------

inline void push(StableIValue*& slot, const Tensor& tensor) {
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_new_tensor_handle(tensor.get(), &handle));
  *slot = 0;
  std::memcpy(slot++, &handle, sizeof(handle));
}

// `count` tensors in parentheses, or one without.
constexpr void read_results(SchemaReader& schema, size_t count, bool parentheses) {
  schema.text("->");
  schema.first = true;
  if (parentheses) schema.text("(");
  for (size_t k = 0; k < count; ++k) schema.type("Tensor");
  if (parentheses) schema.text(")");
}

template <typename R>
struct Result {
  static_assert(!std::is_same_v<R, R>,
                "a result of this type has no form in a schema: return void, a Tensor, or a std::tuple or std::array of them");
};

template <>
struct Result<void> {
  static constexpr void read(SchemaReader& schema) { read_results(schema, 0, true); }
};

template <>
struct Result<Tensor> {
  static constexpr void read(SchemaReader& schema) { read_results(schema, 1, false); }
  static void push_all(StableIValue* slot, const Tensor& result) { push(slot, result); }
};

template <size_t kCount>
struct Result<std::array<Tensor, kCount>> {
  static constexpr void read(SchemaReader& schema) { read_results(schema, kCount, true); }
  static void push_all(StableIValue* slot, const std::array<Tensor, kCount>& results) {
    for (const Tensor& result : results) push(slot, result);
  }
};

template <typename... Ts>
struct Result<std::tuple<Ts...>> {
  static_assert((std::is_same_v<Ts, Tensor> && ...), "several results are all Tensors");
  static constexpr void read(SchemaReader& schema) { read_results(schema, sizeof...(Ts), true); }
  static void push_all(StableIValue* slot, const std::tuple<Ts...>& results) {
    std::apply([&](const Ts&... one) { (push(slot, one), ...); }, results);
  }
};

// ---- operators ------------------------------------------------------------------------------------------------------

inline std::string name_in(const char* schema) { return std::string(schema, std::strchr(schema, '(')); }

template <auto kFunction>
struct Boxed;

template <typename R, typename... Args, R (*kFunction)(Args...)>
struct Boxed<kFunction> {
  static constexpr bool matches(const char* schema) {
    SchemaReader reader{schema};
    while (*reader.at != 0 && *reader.at != '(') ++reader.at;
    reader.text("(");
    (Argument<std::decay_t<Args>>::read(reader), ...);
    reader.text(")");
    Result<R>::read(reader);
    return reader.same && *reader.at == 0;
  }

  // Arguments lie on the stack, and make room for the results.
  template <const char* kSchema>
  static void call(StableIValue* stack, uint64_t, uint64_t) {
    StableIValue* slot = stack;
    const std::tuple<std::decay_t<Args>...> arguments{Argument<std::decay_t<Args>>::pop(slot)...};  // braces: in order
    try {
      if constexpr (std::is_void_v<R>) {
        std::apply(kFunction, arguments);
      } else {
        Result<R>::push_all(stack, std::apply(kFunction, arguments));
      }
    } catch (const std::bad_alloc&) {
      throw std::runtime_error(name_in(kSchema) + " has no memory left for its work: give fewer atoms or pairs at a time");
    }
  }
};

// A library of PyTorch, whose class later versions declare in another namespace, and which of its two sides is filled:
// the schemas of operators, or their functions on one device.
template <class TorchLibrary, bool kDefines>
struct Registration {
  TorchLibrary& library;
};

template <class TorchLibrary>
Registration<TorchLibrary, true> definitions_in(TorchLibrary& library) {
  return {library};
}

template <class TorchLibrary>
Registration<TorchLibrary, false> implementations_in(TorchLibrary& library) {
  return {library};
}

template <const char* kSchema, class TorchLibrary, bool kDefines>
void define(const Registration<TorchLibrary, kDefines>& to) {
  if constexpr (kDefines) to.library.def(kSchema);
}

template <const char* kSchema, auto kFunction, class TorchLibrary, bool kDefines>
void implement(const Registration<TorchLibrary, kDefines>& to) {
  static_assert(Boxed<kFunction>::matches(kSchema), "the function does not take or return what the schema says");
  define<kSchema>(to);
  if constexpr (!kDefines) {
    to.library.impl(name_in(kSchema).c_str(), &Boxed<kFunction>::template call<kSchema>);
  }
}

}  // namespace openmm_gnn
