"""The commands of `procpre-interp`: one per module, each with `main(arguments)`."""
