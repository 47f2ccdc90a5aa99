; Rounding to bfloat16, to nearest even, which compiled code calls where the processor has no
; instruction for it. Compilers' run-time libraries have it only in recent versions.

define hidden bfloat @__truncsfbf2(float %x) {
  %bits = bitcast float %x to i32
  %high = lshr i32 %bits, 16
  %odd = and i32 %high, 1
  %half = add i32 %odd, 32767
  %sum = add i32 %bits, %half
  %rounded = lshr i32 %sum, 16
  %quiet = or i32 %high, 64
  %nan = fcmp uno float %x, %x
  %result = select i1 %nan, i32 %quiet, i32 %rounded
  %short = trunc i32 %result to i16
  %value = bitcast i16 %short to bfloat
  ret bfloat %value
}

; Rounded to odd in fp32 first (towards zero, the last bit set if anything was lost), so that the
; second rounding sees on which side of its midpoints the value lies.
define hidden bfloat @__truncdfbf2(double %x) {
  %near = fptrunc double %x to float
  %bits = bitcast float %near to i32
  %back = fpext float %near to double
  %left = call double @llvm.fabs.f64(double %x)
  %right = call double @llvm.fabs.f64(double %back)
  %above = fcmp ogt double %right, %left
  %step = zext i1 %above to i32
  %toward_zero = sub i32 %bits, %step
  %inexact = fcmp one double %right, %left
  %sticky = zext i1 %inexact to i32
  %odd = or i32 %toward_zero, %sticky
  %float = bitcast i32 %odd to float
  %value = call bfloat @__truncsfbf2(float %float)
  ret bfloat %value
}

declare double @llvm.fabs.f64(double)
