// SPDX-License-Identifier: MIT
#include "stacks.h"

#include <algorithm>
#include <cstring>
#include <cxxabi.h>
#include <elfutils/libdwfl.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <map>
#include <unistd.h>

#include "target.h"

namespace ashlar::frag {

namespace {

constexpr std::size_t kMostFrames = 64;

// The allocator's own: nobody asks who they are.
constexpr std::string_view kDoors[] = {
    "malloc",         "calloc",        "realloc",       "reallocarray",  "memalign",
    "posix_memalign", "aligned_alloc", "valloc",        "pvalloc",       "mallocx",
    "rallocx",        "__libc_malloc", "__libc_calloc", "__libc_realloc"};

bool is_allocator(const Frame& frame) {
  return frame.place.find("libashlar.so") != std::string::npos ||
         frame.function.starts_with("ashlar::") || frame.function.starts_with("operator new") ||
         std::ranges::find(kDoors, frame.function) != std::end(kDoors);
}

std::string demangled(const char* name) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(
      abi::__cxa_demangle(name, nullptr, nullptr, &status), std::free);
  if (status == 0) return text.get();
  const std::string_view plain = name;
  return std::string(plain.substr(0, plain.find('@')));  // without the symbol's version
}

}  // namespace

struct Stacks::Session {
  Session(const Snapshot& snapshot, const std::string& name) {
    const bool is_core = snapshot.source == "core";
    callbacks.find_elf = is_core ? dwfl_build_id_find_elf : dwfl_linux_proc_find_elf;
    callbacks.find_debuginfo = dwfl_standard_find_debuginfo;
    callbacks.debuginfo_path = &no_path;
    dwfl = ::dwfl_begin(&callbacks);
    if (dwfl == nullptr) fail();
    if (is_core) {
      ::elf_version(EV_CURRENT);
      core_file = File(::open(name.c_str(), O_RDONLY | O_CLOEXEC));
      core = core_file ? ::elf_begin(core_file.fd(), ELF_C_READ, nullptr) : nullptr;
      if (core == nullptr || ::dwfl_core_file_report(dwfl, core, nullptr) < 0) fail();
    } else if (::dwfl_linux_proc_report(dwfl, static_cast<pid_t>(snapshot.pid)) != 0) {
      fail();
    }
    if (::dwfl_report_end(dwfl, nullptr, nullptr) != 0) fail();
    static constexpr Dwfl_Thread_Callbacks kThreads = {
        .next_thread = [](Dwfl*, void*, void**) -> pid_t { return 0; },
        .get_thread =
            [](Dwfl*, pid_t, void* session, void** thread) {
              *thread = session;
              return true;
            },
        .memory_read = read_stack,
        .set_initial_registers = set_registers,
        .detach = nullptr,
        .thread_detach = nullptr};
    if (!::dwfl_attach_state(dwfl, core, kThread, &kThreads, this)) fail();
  }
  Session(const Session&) = delete;
  ~Session() {
    if (dwfl != nullptr) ::dwfl_end(dwfl);
    if (core != nullptr) ::elf_end(core);
  }

  [[noreturn]] static void fail() {
    throw Error(fmt::format("its program files cannot be looked at: {}", ::dwfl_errmsg(-1)));
  }

  static bool read_stack(Dwfl*, Dwarf_Addr address, Dwarf_Word* result, void* argument) {
    const Sample& sample = *static_cast<Session*>(argument)->sample;
    const std::uint64_t offset = address - sample.registers.rsp;
    if (address < sample.registers.rsp || offset + sizeof *result > sample.stack.size())
      return false;
    std::memcpy(result, sample.stack.data() + offset, sizeof *result);
    return true;
  }

  static bool set_registers(Dwfl_Thread* thread, void* argument) {
    // Numbered as in the psABI for x86-64.
    const Registers& r = static_cast<Session*>(argument)->sample->registers;
    Dwarf_Word numbered[17] = {};
    numbered[3] = r.rbx;
    numbered[6] = r.rbp;
    numbered[7] = r.rsp;
    numbered[12] = r.r12;
    numbered[13] = r.r13;
    numbered[14] = r.r14;
    numbered[15] = r.r15;
    numbered[16] = r.rip;
    return ::dwfl_thread_state_registers(thread, 0, std::size(numbered), numbered);
  }

  // What a return address belongs to.
  const Frame& frame_at(std::uint64_t address, bool is_return) {
    const auto [at, is_new] = known.try_emplace(address);
    Frame& frame = at->second;
    if (!is_new) return frame;
    frame.address = address;
    const Dwarf_Addr call = is_return ? address - 1 : address;
    Dwfl_Module* const module = ::dwfl_addrmodule(dwfl, call);
    if (module == nullptr) {
      frame.place = fmt::format("{:#x}", address);
      return frame;
    }
    Dwarf_Addr start = 0;
    const char* const file =
        ::dwfl_module_info(module, nullptr, &start, nullptr, nullptr, nullptr, nullptr, nullptr);
    const std::string_view path = file == nullptr ? "?" : file;
    frame.place = fmt::format("{}+{:#x}", path.substr(path.rfind('/') + 1), address - start);
    if (const char* const name = ::dwfl_module_addrname(module, call)) {
      frame.function = demangled(name);
    }
    if (Dwfl_Line* const line = ::dwfl_module_getsrc(module, call)) {
      int number = 0;
      const char* const source = ::dwfl_lineinfo(line, nullptr, &number, nullptr, nullptr, nullptr);
      if (source != nullptr) {
        const std::string_view text = source;
        frame.place = fmt::format("{}:{}", text.substr(text.rfind('/') + 1), number);
      }
    }
    return frame;
  }

  // There is one thread for the unwinder: the sample at hand.
  static constexpr pid_t kThread = 1;

  Dwfl_Callbacks callbacks{};
  char* no_path = nullptr;
  Dwfl* dwfl = nullptr;
  File core_file;
  Elf* core = nullptr;
  const Sample* sample = nullptr;
  std::map<std::uint64_t, Frame> known;
};

Stacks::Stacks(const Snapshot& snapshot, const std::string& name)
    : session_(std::make_unique<Session>(snapshot, name)) {}
Stacks::~Stacks() = default;

std::vector<Frame> Stacks::unwind(const Sample& sample) {
  struct Walk {
    Session& session;
    std::vector<Frame> frames;
  } walk{*session_, {}};
  session_->sample = &sample;
  ::dwfl_getthread_frames(
      session_->dwfl, Session::kThread,
      [](Dwfl_Frame* state, void* argument) -> int {
        Walk& w = *static_cast<Walk*>(argument);
        Dwarf_Addr pc = 0;
        bool is_activation = false;
        if (!::dwfl_frame_pc(state, &pc, &is_activation) || pc == 0) return DWARF_CB_ABORT;
        w.frames.push_back(w.session.frame_at(pc, !is_activation));
        return w.frames.size() < kMostFrames ? DWARF_CB_OK : DWARF_CB_ABORT;
      },
      &walk);
  const auto first = std::ranges::find_if_not(walk.frames, is_allocator);
  walk.frames.erase(walk.frames.begin(), first);
  return std::move(walk.frames);
}

std::vector<std::vector<Frame>> Stacks::unwind(const Samples& samples) {
  std::vector<std::vector<Frame>> stacks;
  for (const Sample& sample : samples.live) stacks.push_back(unwind(sample));
  return stacks;
}

}  // namespace ashlar::frag
