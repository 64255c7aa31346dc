// Puts every tensor of PyTorch, and every array on lines of the kernels (vector.h), against a page that nobody
// may touch: a number read or written beyond an array, by whatever instruction, ends the process. AddressSanitizer
// sees neither masked loads nor tiles. To be loaded by LD_PRELOAD; for x86-64 Linux.
//
// The page lies behind an array, whose beginning is then on no line, or before it where ASSAY_GUARD=before. An
// address is never given out twice, so what is used after it was freed ends the process too.

#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>

extern "C" void __libc_free(void*);
extern "C" void* __libc_memalign(size_t, size_t);

namespace {

constexpr size_t kPage = 4096, kSpace = size_t(1) << 42, kLine = 64;

// Addresses, none of which may be touched at first.
class Space {
 public:
  // Returns null where there is no memory.
  void* take(size_t size) {
    const size_t whole = (size + kPage - 1) / kPage * kPage;
    const std::lock_guard lock(changing_);
    if (!begin_ || whole > kSpace - kPage - used_) return nullptr;
    char* pages = begin_ + used_ + kPage;
    if (mprotect(pages, whole, PROT_READ | PROT_WRITE) != 0) return nullptr;
    used_ += kPage + whole;
    char* found = before_ ? pages : pages + whole - size;
    sizes_[found] = size;
    std::memset(pages, 0xff, whole);  // NaN: what is read before it is written is seen too
    return found;
  }

  bool holds(const void* at) const { return begin_ && at >= begin_ && at < begin_ + kSpace; }

  void give_back(void* at) {
    const std::lock_guard lock(changing_);
    const auto found = sizes_.find(at);
    if (found == sizes_.end()) std::abort();  // freed twice, or never given out
    const uintptr_t first = uintptr_t(at) / kPage * kPage;
    const size_t whole = (uintptr_t(at) + found->second - first + kPage - 1) / kPage * kPage;
    // A new mapping in its place: memory is given back, and neighbours that nobody may touch are joined.
    mmap((void*)first, whole, PROT_NONE, kFlags | MAP_FIXED, -1, 0);
    sizes_.erase(found);
  }

  static Space& only() {
    static Space* space = new Space;  // never destroyed: others free until the process ends
    return *space;
  }

 private:
  static constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

  Space() {
    const char* where = std::getenv("ASSAY_GUARD");
    before_ = where && !std::strcmp(where, "before");
    void* found = mmap(nullptr, kSpace, PROT_NONE, kFlags, -1, 0);
    begin_ = found == MAP_FAILED ? nullptr : static_cast<char*>(found);
  }

  char* begin_;
  size_t used_ = 0;
  bool before_;
  std::mutex changing_;
  std::map<void*, size_t> sizes_;
};

}  // namespace

extern "C" {

// PyTorch's tensors are those that begin on lines.
int posix_memalign(void** found, size_t alignment, size_t size) noexcept {
  *found = alignment == kLine && size ? Space::only().take(size) : __libc_memalign(alignment, size);
  return *found ? 0 : ENOMEM;
}

void free(void* at) noexcept {
  if (at && Space::only().holds(at)) return Space::only().give_back(at);
  __libc_free(at);
}
}

void* operator new(size_t size, std::align_val_t alignment) {
  void* found = nullptr;
  if (posix_memalign(&found, size_t(alignment), size) != 0) throw std::bad_alloc();
  return found;
}

void operator delete(void* at, std::align_val_t) noexcept { free(at); }
