# Writes the descriptors of the messages that shimtrace uses, from the Python package.
import sys
from google.protobuf import descriptor_pb2
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb
want = ["Trace","TracePacket","TrackEvent","TrackDescriptor","ProcessDescriptor","ThreadDescriptor","DebugAnnotation","ClockSnapshot"]
fd = descriptor_pb2.FileDescriptorProto(); pb.DESCRIPTOR.CopyToProto(fd)
out = descriptor_pb2.FileDescriptorProto(name="perfetto_trace.proto", package=fd.package, syntax=fd.syntax)
names = set("."+fd.package+"."+w for w in want)
def inner(m, prefix):
    n=prefix+"."+m.name; yield n
    for x in m.nested_type: yield from inner(x,n)
    for e in m.enum_type: yield n+"."+e.name
known=set()
for m in fd.message_type:
    if m.name in want: known|=set(inner(m,"."+fd.package))
def trim(m):
    keep=[f for f in m.field if not f.type_name or f.type_name in known]
    del m.field[:]; m.field.extend(keep)
    del m.extension[:]
    for x in m.nested_type: trim(x)
    used=set(f.oneof_index for f in m.field if f.HasField("oneof_index"))
    # oneofs without fields are not allowed: renumber
    order=sorted(used); 
    ods=[m.oneof_decl[i] for i in order]
    for f in m.field:
        if f.HasField("oneof_index"): f.oneof_index=order.index(f.oneof_index)
    del m.oneof_decl[:]; m.oneof_decl.extend(ods)
for m in fd.message_type:
    if m.name in want:
        c=descriptor_pb2.DescriptorProto(); c.CopyFrom(m); trim(c); out.message_type.append(c)
open(sys.argv[1],"wb").write(out.SerializeToString())
