// SPDX-License-Identifier: MIT
// The example of shm_arena/README.md, to the letter.
// clang-format off
#include <ashlar/shm.hpp>
#include <boost/container/map.hpp>
#include <boost/container/string.hpp>
#include <cstdio>

using namespace ashlar;
template <class T> using Alloc = shm_allocator<T>;
using String = boost::container::basic_string<char, std::char_traits<char>, Alloc<char>>;
using Map = boost::container::map<String, String, std::less<String>, Alloc<std::pair<const String, String>>>;

int main(int argc, char** argv) {
  if (argc == 3) {  // writer KEY VALUE
    shm_arena arena = shm_arena::open_or_create("/phone-book", 64 << 20);
    Alloc<char> in(arena);
    arena.find_or_construct<Map>("map", in)->insert_or_assign(String(argv[1], in), String(argv[2], in));
  } else {  // reader
    shm_arena arena = shm_arena::open("/phone-book");
    for (const auto& entry : *arena.find<Map>("map"))
      std::printf("%s: %s\n", entry.first.c_str(), entry.second.c_str());
  }
}
