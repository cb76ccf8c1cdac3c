"""Scores, statistics and plots of finished or running work directories."""
