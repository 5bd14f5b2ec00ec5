"""What `safelight doctor` looks at, one module for each thing that can be wrong. Real calls, small and undone again."""
