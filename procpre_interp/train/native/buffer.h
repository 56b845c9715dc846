#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

struct Free {
    void operator()(float* p) const { std::free(p); }
};

// Zeroed floats at an address that no vector load splits over two cache lines.
struct Buffer {
    std::unique_ptr<float[], Free> data;
    std::size_t size = 0;

    Buffer() = default;
    explicit Buffer(std::size_t n) : size((n + 15) / 16 * 16) {
        data.reset(static_cast<float*>(std::aligned_alloc(64, size * sizeof(float))));
        if (data == nullptr) throw std::bad_alloc();
        zero();
    }
    void zero() { std::memset(data.get(), 0, size * sizeof(float)); }
    operator float*() const { return data.get(); }
};
