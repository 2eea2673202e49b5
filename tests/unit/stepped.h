// SPDX-License-Identifier: MIT
// stepped.h: a call that is stopped after each of its instructions, by the processor's trap flag.
#pragma once

#include <type_traits>

#include <signal.h>
#include <ucontext.h>

namespace ashlar::test {

#if defined(__SANITIZE_THREAD__)
inline constexpr bool kCanStep = false;  // signals are put off
#else
inline constexpr bool kCanStep = true;
#endif

inline constexpr unsigned long kTrapFlag = 0x100;

// Called after each instruction of stepped().
inline void (*on_instruction)(void*);
inline void* on_instruction_argument;
inline bool steps_on;

// From there: the rest of the call is not stopped.
inline void step_no_further() { steps_on = false; }

inline void trapped(int, siginfo_t*, void* context) {
  on_instruction(on_instruction_argument);
  if (!steps_on) static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &= ~kTrapFlag;
}

template <class Act, class Visit>
void stepped(Act&& act, Visit&& visit) {
  on_instruction = [](void* v) { (*static_cast<std::remove_reference_t<Visit>*>(v))(); };
  on_instruction_argument = &visit;
  steps_on = true;
  struct sigaction trap {};
  trap.sa_sigaction = trapped;
  trap.sa_flags = SA_SIGINFO | SA_NODEFER;  // a check that fails leaves it by an exception
  struct sigaction before {};
  ::sigaction(SIGTRAP, &trap, &before);
  // Below the red zone of this function.
  asm volatile(
      "lea -256(%%rsp), %%rsp; pushfq; orq $0x100, (%%rsp); popfq; lea 256(%%rsp), %%rsp" ::
          : "memory", "cc");
  act();
  asm volatile(
      "lea -256(%%rsp), %%rsp; pushfq; andq $~0x100, (%%rsp); popfq; lea 256(%%rsp), %%rsp" ::
          : "memory", "cc");
  ::sigaction(SIGTRAP, &before, nullptr);
}

}  // namespace ashlar::test
