// A load and a store of a tile for each pair of base and index, and each kind of displacement, by the
// assembler's encoding: for amx_instructions.cpp.

#pragma once

#include <cstdint>

struct Form {
  void (*run)(const void* base, int64_t index);  // tile 3 from or to displacement(base, index, scale)
  int64_t displacement, scale;
  const char* name;
};
#pragma GCC visibility push(hidden)
extern "C" {
extern const Form loads_begin[], loads_end[], stores_begin[], stores_end[];
int64_t form_base, form_index, form_stack;
}
#pragma GCC visibility pop

// Registers that a function must keep go to the stack, the pointer to the stack to memory.
asm(R"asm(
.macro FORM displacement, base, index, scale, load
.text
1:
  push %rbx
  push %rbp
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rdi, form_base(%rip)
  mov %rsi, form_index(%rip)
  mov %rsp, form_stack(%rip)
  mov form_base(%rip), %\base
  mov form_index(%rip), %\index
  .if \load
  tileloadd \displacement(%\base,%\index,\scale), %tmm3
  .else
  tilestored %tmm3, \displacement(%\base,%\index,\scale)
  .endif
  mov form_stack(%rip), %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbp
  pop %rbx
  ret
2: .asciz "\displacement(\base,\index,\scale)"
.section .data.rel, "aw"
  .quad 1b, \displacement, \scale, 2b
.text
.endm

.macro FORMS load
.irp base, rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15
.irp index, rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
.ifnc \base, \index
  FORM 0, \base, \index, 1, \load
  FORM 0x40, \base, \index, 2, \load
  FORM -0x80, \base, \index, 4, \load
  FORM 0x12340, \base, \index, 8, \load
.endif
.endr
.endr
.endm

.section .data.rel, "aw"
loads_begin:
.text
  FORMS 1
.section .data.rel, "aw"
loads_end:
stores_begin:
.text
  FORMS 0
.section .data.rel, "aw"
stores_end:
.text
)asm");
