// What the binding uses of DLPack 1.x, an ABI of plain C structs (dmlc/dlpack, dlpack.h), and of
// its exchange table, which a tensor type has as `__dlpack_c_exchange_api__`.
#pragma once

#include <cstdint>

namespace tfmbs::binding::dlpack {

inline constexpr std::uint32_t kMajorVersion = 1;
inline constexpr std::int32_t kCpu = 1;
inline constexpr std::uint8_t kFloat = 2;
inline constexpr std::uint8_t kBFloat = 4;

struct Version {
  std::uint32_t major;
  std::uint32_t minor;
};

struct Device {
  std::int32_t type;
  std::int32_t id;
};

struct DataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t dimensions;
  DataType type;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null: row-major
  std::uint64_t byte_offset;
};

struct ManagedTensor {
  Version version;
  void* context;
  void (*deleter)(ManagedTensor* self);
  std::uint64_t flags;
  Tensor tensor;
};

struct ExchangeHeader {
  Version version;
  ExchangeHeader* previous;
};

// Functions return 0, or -1 with a Python error set (`allocate`: with an error told to set_error).
struct Exchange {
  ExchangeHeader header;
  int (*allocate)(Tensor* prototype, ManagedTensor** out, void* context,
                  void (*set_error)(void* context, const char* kind, const char* message));
  int (*managed_from_object)(void* object, ManagedTensor** out);
  // Takes the tensor, and gives a new reference.
  int (*managed_to_object)(ManagedTensor* tensor, void** out);
  // Borrowed: valid as long as the object is.
  int (*from_object)(void* object, Tensor* out);
  int (*current_stream)(std::int32_t device_type, std::int32_t device_id, void** out);
};

}  // namespace tfmbs::binding::dlpack
