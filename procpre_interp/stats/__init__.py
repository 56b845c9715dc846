"""Statistics over replicates: tables in, tables out. No torch."""
