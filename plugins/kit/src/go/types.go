// Package types has Go's forms of the contract's options, results and tuples.
package types

// Unit is the value of a result that carries none.
type Unit struct{}

const (
	OptionNone = 0
	OptionSome = 1
)

// Option is a value that may be absent.
type Option[T any] struct {
	is    bool
	value T
}

func None[T any]() Option[T]        { return Option[T]{} }
func Some[T any](value T) Option[T] { return Option[T]{true, value} }

func (o Option[T]) IsSome() bool { return o.is }
func (o Option[T]) IsNone() bool { return !o.is }

func (o Option[T]) Tag() uint8 {
	if o.is {
		return OptionSome
	}
	return OptionNone
}

// Some returns the value. It panics where there is none.
func (o Option[T]) Some() T {
	if !o.is {
		panic("this option has no value")
	}
	return o.value
}

// SomeOr returns the value, or another where there is none.
func (o Option[T]) SomeOr(other T) T {
	if o.is {
		return o.value
	}
	return other
}

const (
	ResultOk  = 0
	ResultErr = 1
)

// Result is a value, or why there is none.
type Result[T any, E any] struct {
	failed bool
	value  T
	why    E
}

func Ok[T any, E any](value T) Result[T, E] { return Result[T, E]{value: value} }
func Err[T any, E any](why E) Result[T, E]  { return Result[T, E]{failed: true, why: why} }

func (r Result[T, E]) IsOk() bool  { return !r.failed }
func (r Result[T, E]) IsErr() bool { return r.failed }

func (r Result[T, E]) Tag() uint8 {
	if r.failed {
		return ResultErr
	}
	return ResultOk
}

// Ok returns the value. It panics where there is none.
func (r Result[T, E]) Ok() T {
	if r.failed {
		panic("this result is an error")
	}
	return r.value
}

// Err returns why there is no value. It panics where there is one.
func (r Result[T, E]) Err() E {
	if !r.failed {
		panic("this result is no error")
	}
	return r.why
}
