"""The commands of `procpre-interp`: one a module, each with `main(arguments)`."""
