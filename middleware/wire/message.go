package wire

import (
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Bytes returns the string or bytes in field num of an encoded message, nil if it
// has none. Like Uint and Time it reads without decoding the rest, and what of a
// message that is cut off or malformed can be read.
func Bytes(msg []byte, num protowire.Number) []byte {
	return last(msg, num, protowire.BytesType)
}

// Uint returns the unsigned integer in field num and whether there is one.
func Uint(msg []byte, num protowire.Number) (uint64, bool) {
	val := last(msg, num, protowire.VarintType)
	if val == nil {
		return 0, false
	}
	v, _ := protowire.ConsumeVarint(val)
	return v, true
}

// maxSeconds is the last second since 1970 of which time.Time.UnixNano, and with
// it a span, can tell: in the year 2262.
const maxSeconds = math.MaxInt64/uint64(time.Second) - 1

// Time returns the google.protobuf.Timestamp in field num, the zero time if there
// is none or it is not between 1970 and 2262.
func Time(msg []byte, num protowire.Number) time.Time {
	val := last(msg, num, protowire.BytesType)
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

// last returns the last value of field num with the type typ, as protobuf has it
// for a field that repeats but is not repeated.
func last(msg []byte, num protowire.Number, typ protowire.Type) (val []byte) {
	each(msg, func(n protowire.Number, t protowire.Type, v []byte) {
		if n == num && t == typ {
			val = v
		}
	})
	return val
}
