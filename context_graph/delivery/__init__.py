"""At-least-once made boring: one runtime for every stage; it knows no stage."""
