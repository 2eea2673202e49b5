// SPDX-License-Identifier: MIT
// A malloc of 6 instructions and a free of 1, for the test of hit-path.
__asm__(
    ".local room\n"
    ".comm room, 64 << 20, 16\n"
    ".data\n"
    "next: .quad room\n"
    ".text\n"
    ".globl malloc, free\n"
    ".type malloc, @function\n"
    ".type free, @function\n"
    "malloc:\n"
    "  mov next(%rip), %rax\n"
    "  add $15, %rdi\n"
    "  and $-16, %rdi\n"
    "  add %rax, %rdi\n"
    "  mov %rdi, next(%rip)\n"
    "  ret\n"
    "free:\n"
    "  ret\n"
    ".section .note.GNU-stack,\"\",@progbits\n");
