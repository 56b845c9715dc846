// Runs the native kernel on one case from a file, so that it can be built with sanitizers: Python itself cannot.
// Input, little endian: int64 counts (n_layers, n_ctx, d_vocab, tied, n_offsets, n_parameters, threads, batch, width),
// float epsilon and scale, then offsets, parameters, tokens, targets, mask. Output: the loss (double), the gradient.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

extern "C" {
void* kernel_create(int, int, int, int, float, const std::int64_t*, std::int64_t, int);
void kernel_destroy(void*);
double kernel_step(void*, const float*, float*, const std::int64_t*, const std::int64_t*, const std::uint8_t*,
                   std::int64_t, int, float);
void kernel_score(void*, const float*, const std::int64_t*, const std::int64_t*, const std::uint8_t*, std::int64_t, int,
                  double*, std::int64_t*);
}

template <class T>
std::vector<T> read(std::FILE* file, std::size_t n) {
    std::vector<T> x(n);
    if (std::fread(x.data(), sizeof(T), n, file) != n) std::abort();
    return x;
}

int main(int, char** argv) {
    std::FILE* file = std::fopen(argv[1], "rb");
    const auto c = read<std::int64_t>(file, 9);
    const auto f = read<float>(file, 2);
    const auto offsets = read<std::int64_t>(file, c[4]);
    const auto parameters = read<float>(file, c[5]);
    const auto tokens = read<std::int64_t>(file, c[7] * c[8]), targets = read<std::int64_t>(file, c[7] * c[8]);
    const auto mask = read<std::uint8_t>(file, c[7] * c[8]);
    std::fclose(file);
    std::vector<float> gradient(c[5], 0.0f);
    void* kernel = kernel_create(int(c[0]), int(c[1]), int(c[2]), int(c[3]), f[0], offsets.data(), c[5], int(c[6]));
    const double loss = kernel_step(kernel, parameters.data(), gradient.data(), tokens.data(), targets.data(),
                                    mask.data(), c[7], int(c[8]), f[1]);
    std::vector<double> losses(c[7]);
    std::vector<std::int64_t> correct(c[7]);
    kernel_score(kernel, parameters.data(), tokens.data(), targets.data(), mask.data(), c[7], int(c[8]), losses.data(),
                 correct.data());
    kernel_destroy(kernel);
    std::FILE* output = std::fopen(argv[2], "wb");
    std::fwrite(&loss, sizeof loss, 1, output);
    std::fwrite(gradient.data(), sizeof(float), gradient.size(), output);
    std::fclose(output);
}
