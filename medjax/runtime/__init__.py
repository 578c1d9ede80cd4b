"""What speaks to the compiler, the process and the allocator; knows JAX and no other room."""

from medjax.runtime.allocator import give_back_memory as give_back_memory
from medjax.runtime.allocator import keep_memory as keep_memory
from medjax.runtime.allocator import run_in_calling_thread as run_in_calling_thread
from medjax.runtime.allocator import warn_of_other_threads as warn_of_other_threads
from medjax.runtime.aside import compile_aside as compile_aside
from medjax.runtime.aside import is_compiling_aside as is_compiling_aside
from medjax.runtime.jit import Compilation as Compilation
from medjax.runtime.jit import Compiled as Compiled
from medjax.runtime.jit import CompiledStep as CompiledStep
from medjax.runtime.jit import OutOfMemoryError as OutOfMemoryError
from medjax.runtime.waiting import size_of as size_of
from medjax.runtime.waiting import telling as telling
from medjax.runtime.waiting import waiting_for as waiting_for
