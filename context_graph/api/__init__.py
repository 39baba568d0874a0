"""HTTP only: parse, call one use case, render. No decision about memory is made here."""
