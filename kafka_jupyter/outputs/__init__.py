"""What a cell's output holds of its runs. Pure: card states and rows in; figures, HTML, text and the bundle out."""
