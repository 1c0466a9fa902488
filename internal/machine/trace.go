package machine

// A command of a call that is traced has a flag, and a trailer behind all else:
// what the call is part of, and how long that is (1 byte, 1 to [MaxTrace]). It
// changes nothing of what the command does and leaves no mark in the state: it is
// for those who watch each member apply it.
const hasTrace = 1 << 4

// MaxTrace is how many bytes a trace may have.
const MaxTrace = 32

// AppendTrace marks the whole command cmd, after its caller, as part of a trace;
// one that is empty or longer than [MaxTrace] leaves it as it is.
func AppendTrace(cmd, trace []byte) []byte {
	if len(trace) == 0 || len(trace) > MaxTrace {
		return cmd
	}
	cmd[1] |= hasTrace
	return append(append(cmd, trace...), byte(len(trace)))
}

// TraceOf is what [AppendTrace] gave a command; nil where it gave nothing. It is
// a part of the command.
func TraceOf(command []byte) []byte {
	if len(command) < 2 || command[1]&hasTrace == 0 {
		return nil
	}
	d := decoder{data: command[2:]}
	return d.trace()
}

// trace takes the trailer off the data.
func (d *decoder) trace() []byte {
	if d.err != nil {
		return nil
	}
	end := len(d.data) - 1
	if end < 0 || d.data[end] == 0 || d.data[end] > MaxTrace || int(d.data[end]) > end {
		d.fail(errTruncated)
		return nil
	}
	begin := end - int(d.data[end])
	trace := d.data[begin:end:end]
	d.data = d.data[:begin:begin]
	return trace
}
