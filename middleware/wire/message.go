package wire

import (
	"math"
	"time"

	"github.com/shimtrace/shimtrace/internal/protofields"
	"google.golang.org/protobuf/encoding/protowire"
)

// Bytes returns the string or bytes in field num of an encoded message, nil if it has none.
// Like Uint and Time it does not decode the rest, and of a message that is cut off or
// malformed it reads what can be read.
func Bytes(msg []byte, num protowire.Number) (last []byte) {
	for f := protofields.Of(msg); f.Next() || f.Cut(); {
		if f.Is(num) {
			last = f.Bytes
		}
	}
	return last
}

// Uint returns the unsigned integer in field num and whether there is one.
func Uint(msg []byte, num protowire.Number) (last uint64, ok bool) {
	for f := protofields.Of(msg); f.Next(); {
		if f.Has(num, protowire.VarintType) {
			last, ok = f.Value, true
		}
	}
	return last, ok
}

// maxSeconds is the last second since 1970 of which time.Time.UnixNano, and with
// it a span, can tell: in the year 2262.
const maxSeconds = math.MaxInt64/uint64(time.Second) - 1

// Time returns the google.protobuf.Timestamp in field num, the zero time if there
// is none or it is not between 1970 and 2262.
func Time(msg []byte, num protowire.Number) time.Time {
	val := Bytes(msg, num)
	if val == nil {
		return time.Time{}
	}
	sec, _ := Uint(val, 1)
	nsec, _ := Uint(val, 2)
	if sec > maxSeconds || nsec >= uint64(time.Second) {
		return time.Time{}
	}
	return time.Unix(int64(sec), int64(nsec))
}
