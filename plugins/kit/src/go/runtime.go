// Package runtime is what the bindings need of Go: memory that the host may write to, and handles of its resources.
package runtime

import (
	"runtime"
	"unsafe"
)

// The host asks for memory while it is in the middle of a call, when calling it back is forbidden. A collection of garbage
// asks it for the time, so that none may begin then: the collector leaves alone who holds the machine. Set to collect
// in one go, by the build's -X runtime.godebugDefault, it also leaves nothing half done for such a moment.

//go:linkname acquirem runtime.acquirem
func acquirem() unsafe.Pointer

//go:linkname releasem runtime.releasem
func releasem(machine unsafe.Pointer)

// Memory from below Go's heap, for what is asked before Go has started.
//
//go:linkname sbrk runtime.sbrk
func sbrk(size uintptr) unsafe.Pointer

//go:wasmimport wasi_snapshot_preview1 adapter_monotonic_clock_set_paused
func pauseClock(paused bool)

var (
	started  bool
	received runtime.Pinner
)

func init() {
	started = true
}

//go:wasmexport cabi_realloc
func reallocate(old unsafe.Pointer, oldSize, align, size uintptr) unsafe.Pointer {
	if old != nil || oldSize != 0 {
		panic("the host asked to resize memory, which it never does")
	}
	if !started {
		at := uintptr(sbrk(size + align))
		return unsafe.Pointer((at + align - 1) &^ (align - 1))
	}
	machine := acquirem()
	pauseClock(true)
	at := Allocate(&received, size, align)
	pauseClock(false)
	releasem(machine)
	return at
}

// Unpin lets go of what the host wrote: by now it hangs on the values that were made of it.
func Unpin() {
	received.Unpin()
}

// Allocate returns memory that stays where it is until the pinner lets go of it.
func Allocate(pinner *runtime.Pinner, size, align uintptr) unsafe.Pointer {
	if size == 0 {
		return nil
	}
	var at unsafe.Pointer
	if align <= 1 {
		at = unsafe.Pointer(unsafe.SliceData(make([]byte, size)))
	} else {
		at = unsafe.Pointer(unsafe.SliceData(make([]uint64, (size+7)/8)))
	}
	pinner.Pin(at)
	return at
}

// Handle is the number of a resource of the host, or zero when it was given away.
type Handle struct {
	number int32
}

func MakeHandle(number int32) *Handle {
	if number == 0 {
		panic("no resource has the number zero")
	}
	return &Handle{number}
}

// Use returns the number of a resource that is still owned.
func (h *Handle) Use() int32 {
	if h.number == 0 {
		panic("this resource was given away or dropped")
	}
	return h.number
}

// Take returns it and gives the resource away.
func (h *Handle) Take() int32 {
	number := h.Use()
	h.number = 0
	return number
}

// TakeOrNil is Take, with zero for a resource that was given away before.
func (h *Handle) TakeOrNil() int32 {
	number := h.number
	h.number = 0
	return number
}

func (h *Handle) Set(number int32) {
	if h.number != 0 || number == 0 {
		panic("this handle has a resource already")
	}
	h.number = number
}
